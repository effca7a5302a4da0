import pytest
import torch
from torch import nn

from model.content import item_features
from model.interest_net import InterestNet, NetSettings, scan, script

EVENTS = 200


FEATURES = item_features(
    [f"i{k}" for k in range(50)], [f"thing {k % 7}" for k in range(50)], [f"c{k % 5} > d{k % 10}" for k in range(50)]
)


@pytest.fixture(params=[None, FEATURES], ids=["plain", "content"])
def network(request: pytest.FixtureRequest) -> InterestNet:
    torch.manual_seed(3)
    network = InterestNet(NetSettings(items=50, dim=16, hidden=24), request.param)
    for parameter in network.parameters():  # a fresh network's gates are near zero: make all of it matter
        nn.init.normal_(parameter, std=0.3)
    return network.eval()


def test_step_is_the_sequence(network: InterestNet) -> None:
    tokens = torch.randint(0, 51, (EVENTS, 3))  # T B, with starts (token 50) among them
    with torch.no_grad():
        whole = network.sequence(tokens)
        scripted = script(network)
        state = torch.zeros(3, network.state_size)
        for t in range(EVENTS):
            state = scripted.step(state, tokens[t], torch.zeros(3, dtype=torch.long))
            torch.testing.assert_close(scripted.query(state), whole[t], rtol=0, atol=1e-5)
    assert whole.std() > 0.1


def test_what_content_adds_stands_in_the_exported_embeddings() -> None:
    torch.manual_seed(3)
    network = InterestNet(NetSettings(items=50, dim=16, hidden=24), FEATURES)
    assert network.content is not None
    nn.init.normal_(network.content.table.weight)
    folded = network.folded()
    assert folded.content is None
    torch.testing.assert_close(folded.item_matrix(), network.item_matrix(), rtol=0, atol=0)
    assert not torch.allclose(folded.item_matrix(), network.embedding.weight[:-1])
    start = torch.equal(folded.embedding.weight[-1], network.embedding.weight[-1])
    assert start, "the token of a session's start has no content"


def test_events_after_do_not_change_what_was_known(network: InterestNet) -> None:
    tokens = torch.randint(0, 50, (20, 1))
    other = tokens.clone()
    other[10:] = (other[10:] + 7) % 50
    with torch.no_grad():
        one, two = network.sequence(tokens), network.sequence(other)
    assert torch.equal(one[:10], two[:10])
    assert not torch.allclose(one[10:], two[10:])


def test_users_do_not_touch_each_other(network: InterestNet) -> None:
    tokens = torch.randint(0, 50, (20, 2))
    other = tokens.clone()
    other[:, 1] = (other[:, 1] + 7) % 50
    with torch.no_grad():
        one, two = network.sequence(tokens), network.sequence(other)
    torch.testing.assert_close(one[:, 0], two[:, 0], rtol=0, atol=1e-6)


def test_scan_by_hand() -> None:
    a = torch.tensor([9.0, 0.5, 0.0]).reshape(3, 1, 1)
    u = torch.tensor([1.0, 2.0, 3.0]).reshape(3, 1, 1)
    assert scan(a, u).flatten().tolist() == [1.0, 2.5, 3.0]  # a[0] meets the empty memory


@pytest.mark.parametrize("events", [1, 2, 7])
def test_gradient_of_scan(events: int) -> None:
    torch.manual_seed(0)
    a = torch.rand(events, 2, 3, dtype=torch.double, requires_grad=True)
    u = torch.rand(events, 2, 3, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(scan, (a, u))


def test_time_constants_span_the_settings() -> None:
    network = InterestNet(NetSettings(items=5, hidden=64, longest_memory_events=200.0))
    block = network.blocks[0]
    keep = torch.sigmoid(block.get_parameter("keep_bias"))
    memory_events = -1.0 / torch.log(keep)
    torch.testing.assert_close(memory_events[[0, -1]], torch.tensor([1.0, 200.0]), rtol=1e-3, atol=0)


def test_script_leaves_the_network_trainable(network: InterestNet) -> None:
    network.train()
    scripted = script(network)
    assert network.training
    assert not scripted.training
    assert all(parameter.requires_grad for parameter in network.parameters())
    assert not any(parameter.requires_grad for parameter in scripted.parameters())
