import numpy as np
import torch

from model.baselines import FitSettings
from model.baselines.ncf import NCF, NeuMf
from model.baselines.train import DescentSettings
from model.evaluation.questions import Questions
from model.training.dataset import dataset_from_arrays
from state.weights import PURCHASE


def test_all_items_at_once_are_the_pairs_one_by_one() -> None:
    torch.manual_seed(0)
    network = NeuMf(users=3, items=5, factors=4)
    for weight in network.parameters():
        torch.nn.init.normal_(weight)  # the usual small start would hide a difference
    user = torch.tensor([2, 0])
    with torch.no_grad():
        scores = network.all_items(user)  # 2 5
        pairs = network(user, torch.arange(5).repeat(2, 1))
    torch.testing.assert_close(scores, pairs)


def test_what_a_user_took_is_never_learnt_as_not_taken() -> None:
    users, items = 4, 6
    everything = dataset_from_arrays(
        user=np.repeat(np.arange(users, dtype=np.int32), items),
        item=np.tile(np.arange(items, dtype=np.int32), users),
        type=np.full(users * items, PURCHASE, np.uint8),
        time_ms=np.arange(users * items, dtype=np.int64),
        user_ids=[f"u{k}" for k in range(users)],
        item_ids=list("abcdef"),
    )
    model = NCF(factors=4)
    model.descent = DescentSettings(learning_rate=2e-2, weight_decay=0.0, epochs=50)
    model.fit(everything, FitSettings(device="cpu"))
    # Every draw is a taken item: with one of them as a negative most pairs would be learnt as not taken.
    assert (model.score(Questions(everything, np.arange(0, users * items, items))) > 0).all()
