import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from model.errors import EvaluationError
from model.evaluation.plot import check_plot, plot


def model(name: str, hr: float) -> dict:
    spans = {"hr@10": [hr - 0.01, hr + 0.02], "ndcg@10": [None, None]}
    return {"name": name, "metrics": {"hr@10": hr, "ndcg@10": hr / 2}, "intervals": spans}


DOCUMENT = {
    "protocol": "leave-one-out",
    "seen_filtered": True,
    "questions": 1234,
    "data": "log.csv",
    "k": [10],
    "models": [model("ours", 0.3), model("popularity", 0.1)],
    **model("ours", 0.3),
}


def test_an_svg_names_the_models_and_how_they_were_asked(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    plot(DOCUMENT, tmp_path / "plot.svg")
    text = (tmp_path / "plot.svg").read_text()
    assert ElementTree.fromstring(text).tag.endswith("svg")
    for part in ("popularity", "hr@10", "ndcg@10", "log.csv: leave-one-out, seen items filtered, 1,234 questions"):
        assert f"<!-- {part} -->" in text


def test_a_png_of_one_model(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    alone = {key: value for key, value in DOCUMENT.items() if key != "models"}
    plot(alone, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_another_kind_or_no_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match=r"\.svg or \.png"):
        check_plot(tmp_path / "plot.pdf")
    with pytest.raises(EvaluationError, match="is no folder"):
        check_plot(tmp_path / "none" / "plot.svg")


def test_without_matplotlib_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(EvaluationError, match=r"pip install 'driftline\[plot\]'"):
        check_plot(tmp_path / "plot.svg")
