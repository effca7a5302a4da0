import torch

from model.baselines.ncf import NeuMf


def test_all_items_at_once_are_the_pairs_one_by_one() -> None:
    torch.manual_seed(0)
    network = NeuMf(users=3, items=5, factors=4)
    for weight in network.parameters():
        torch.nn.init.normal_(weight)  # the usual small start would hide a difference
    user = torch.tensor([2, 0])
    with torch.no_grad():
        scores = network.all_items(user)  # 2 5
        pairs = network(user.repeat_interleave(5), torch.arange(5).repeat(2)).view(2, 5)
    torch.testing.assert_close(scores, pairs)
