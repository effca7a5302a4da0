"""One bar chart of an evaluation: every model's hit rate and NDCG with their intervals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from model.errors import EvaluationError, ModelError

FORMATS = (".svg", ".png")


def check_plot(path: Path) -> None:
    """Raises EvaluationError when no plot can be drawn into this file: to be asked before the work, not after it."""
    if path.suffix.lower() not in FORMATS:
        raise EvaluationError(f"{path}: a plot is {' or '.join(FORMATS)}; give a file that ends so.")
    if not path.parent.is_dir():
        raise EvaluationError(f"{path.parent} is no folder; make it first.")
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError:
        raise EvaluationError(
            "a plot needs matplotlib, which is not installed: pip install 'driftline[plot]'."
        ) from None


def plot(document: dict[str, Any], path: Path) -> None:
    """Draw the document of model.evaluation.compare, best model on top. Raises what check_plot does, and ModelError
    when the disk refuses."""
    check_plot(path)
    from matplotlib.figure import Figure

    k = document["k"][0]
    names = (f"hr@{k}", f"ndcg@{k}")
    models = document.get("models") or [{"name": "ours", **document}]
    models = sorted(models, key=lambda model: model["metrics"][names[1]] or 0.0)
    figure = Figure(figsize=(10, 1.6 + 0.4 * len(models)), layout="constrained")
    for place, name in enumerate(names, 1):
        axes = figure.add_subplot(1, 2, place)
        value = [model["metrics"][name] or 0.0 for model in models]
        spans = [model["intervals"][name] for model in models]
        below = [max(v - (low or v), 0.0) for v, (low, _) in zip(value, spans, strict=True)]
        above = [max((high or v) - v, 0.0) for v, (_, high) in zip(value, spans, strict=True)]
        colours = ["tab:blue" if model["name"] == "ours" else "tab:gray" for model in models]
        axes.barh([model["name"] for model in models], value, xerr=[below, above], color=colours, capsize=2)
        axes.set_xlabel(name)
    seen = "seen items filtered" if document["seen_filtered"] else "seen items kept"
    figure.suptitle(f"{document['data']}: {document['protocol']}, {seen}, {document['questions']:,} questions")
    try:
        figure.savefig(path)
    except OSError as error:
        raise ModelError(f"{path}: the plot could not be written ({error}); check its space and rights.") from error
