from typing import Any

import msgspec
import pytest

from model.errors import ModelError
from model.ranking.settings import RankingSettings


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("list_size", 0),
        ("list_size", 5000),
        ("rules_items", 0),
        ("basket_items", 0),
        ("rules_per_item", 0),
        ("trend_refresh_events", 0),
        ("popularity_half_life_s", 0.0),
        ("popularity_prior", -1.0),
        ("rules_age_decay", 1.5),
        ("exclude", "everything"),
    ],
)
def test_a_value_that_cannot_work_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(ModelError, match=name):
        RankingSettings(**{name: value})


def test_an_unknown_setting_is_refused() -> None:
    with pytest.raises(msgspec.ValidationError, match="lists_size"):
        msgspec.convert({"lists_size": 3}, RankingSettings)
