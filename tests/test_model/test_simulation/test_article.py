"""The article's network learns what features tell, and the case runs whole."""

import json
from pathlib import Path

import numpy as np
import pytest

from model.baselines.base import FitSettings
from model.errors import DatasetError
from model.evaluation.metrics import hit_rate
from model.evaluation.offline import judge
from model.evaluation.questions import Questions
from model.simulation.article import ArticleNetwork, clicked_looks, main, table
from model.simulation.world import CLICK, VIEW
from model.training.dataset import Dataset, dataset_from_arrays


def taste(users: int = 400, items: int = 20, each: int = 10) -> tuple[Dataset, np.ndarray, np.ndarray]:
    """Users click the items whose only feature has the sign of their own."""
    draw = np.random.default_rng(0)
    user_features = draw.choice([-1.0, 1.0], (users, 1)).astype(np.float32)
    item_features = np.repeat([[-1.0], [1.0]], items // 2, axis=0).astype(np.float32)
    user = np.repeat(np.arange(users), each).astype(np.int32)
    item = draw.integers(0, items // 2, len(user)) + (user_features[user, 0] > 0) * (items // 2)
    data = dataset_from_arrays(
        user=user,
        item=item.astype(np.int32),
        type=np.full(len(user), CLICK, np.uint8),
        time_ms=np.arange(len(user), dtype=np.int64) * 1000,
        user_ids=[f"u{k}" for k in range(users)],
        item_ids=[f"i{k}" for k in range(items)],
    )
    return data, user_features, item_features


def test_it_learns_from_features_alone() -> None:
    data, users, items = taste()
    network = ArticleNetwork(users, items, epochs=30)
    network.fit(data, FitSettings())
    questions = Questions(data, np.arange(9, len(data), 10))
    scores = network.score(questions)
    right = items[None, :, 0] == users[questions.user]
    assert scores.shape == (len(questions), 20)
    assert (np.where(right, scores, np.inf).min(axis=1) > np.where(right, -np.inf, scores).max(axis=1)).all()
    assert hit_rate(judge(network, questions, seen_filtered=False).rank, 10) == 1.0


def test_the_same_seed_gives_the_same_scores() -> None:
    data, users, items = taste(users=30)
    found = []
    for seed in (1, 1, 2):
        network = ArticleNetwork(users, items)
        network.fit(data, FitSettings(seed=seed))
        found.append(network.score(Questions(data, np.array([9]))))
    assert np.array_equal(found[0], found[1])
    assert not np.array_equal(found[0], found[2])


def test_views_alone_teach_it_nothing() -> None:
    data, users, items = taste(users=30)
    views = Dataset(**{**vars(data), "type": np.full(len(data), VIEW, np.uint8)})
    with pytest.raises(DatasetError):
        ArticleNetwork(users, items).fit(views, FitSettings())


def test_a_question_is_a_look_that_led_to_a_click() -> None:
    """time   0     1      2     3     4      5      6
    user   0     0      0     0     1      1      1
    item   3     3      4     5     6      6      6
           view  click  view  view  click  view   click
    """
    data = dataset_from_arrays(
        user=np.array([0, 0, 0, 0, 1, 1, 1], np.int32),
        item=np.array([3, 3, 4, 5, 6, 6, 6], np.int32),
        type=np.array([VIEW, CLICK, VIEW, VIEW, CLICK, VIEW, CLICK], np.uint8),
        time_ms=np.arange(7, dtype=np.int64),
        user_ids=["a", "b"],
        item_ids=[str(k) for k in range(10)],
    )
    assert clicked_looks(data, 0).tolist() == [0, 5]
    assert clicked_looks(data, 1).tolist() == [5]


def test_the_whole_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "article.json"
    size = ("--users", "200", "--items", "60", "--events", "8000", "--questions", "50", "--steps", "3")
    assert main([*size, "--json", str(path)]) == 0
    found = json.loads(path.read_text())
    assert capsys.readouterr().out.strip() == table(found).strip()
    assert set(found["models"]) == {"ours", "article", "decayed-popularity"}
    assert found["questions"] == 50
    assert 0.0 <= found["models"]["ours"]["metrics"]["f1@10"] <= 2 / 11
