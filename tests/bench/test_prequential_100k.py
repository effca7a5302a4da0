"""The figures of `prequential_100k` on the first tenth of the ratings, and its own scorer."""

import numpy as np
import pytest

from model.evaluation.baselines import DecayedPopularity
from model.online.hybrid import OnlineHybrid
from model.training.dataset import load_dataset
from tests.bench import prequential_100k as bench


def test_rules_count_what_came_after_each_time_by_the_distance() -> None:
    rules = bench.CountedRules(4)
    for item in (0, 1, 2):
        rules.learn(7, item, 0)
    rules.learn(8, 0, 0)
    scores = rules.score(8, 0)
    np.testing.assert_allclose(scores[[1, 2]], np.array([1.0, 0.5]) * 2**-0.5, rtol=1e-5)  # item 0 was taken twice
    rules.learn(8, 4, 0)  # a session's start
    np.testing.assert_array_equal(rules.score(8, 0), scores)


def test_content_has_rows_of_length_one_in_the_order_of_the_items(tmp_path: bench.Path) -> None:
    file = tmp_path / "films.item"
    file.write_text(
        "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"
        "5\tOne\t1995\tDrama War\n6\tTwo\t1994\tDrama\n7\tThree\t1961\tWestern\n"
    )
    content = bench.content_of(file, ["7", "5", "6"])
    np.testing.assert_allclose(np.linalg.norm(content, axis=1), 1.0, rtol=1e-6)
    alike = content @ content.T
    assert alike[0, 1] == 0.0
    assert 0.5 < alike[1, 2] < 1.0


@pytest.mark.data
@pytest.mark.skipif(not bench.DATA.exists(), reason="MovieLens-100k is not in ../shared/data")
def test_on_films_it_beats_popularity_more_than_twofold() -> None:
    data = load_dataset(bench.DATA)
    part = data.select(data.time_ms <= np.quantile(data.time_ms, 0.1))
    found = bench.figures(
        part,
        {"popularity": DecayedPopularity(part.items, bench.FOREVER_S), "online": OnlineHybrid(part.items)},
    )
    assert found["online"]["hr@10"] > 2 * found["popularity"]["hr@10"]
    assert found["online"]["hr@10"] > 0.16
