"""`driftline evaluate`: how good a model is, beside others."""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from stream.cli.common import Output, Run, app, command, console
from stream.errors import RefusedError

# Seconds between two lines of progress.
_LINE_EVERY_S = 10.0


@command(app)
def evaluate(
    run: Run,
    artifact: Annotated[
        Path,
        typer.Argument(metavar="ARTIFACT", help="Folder of the model; online: one that learns while it is asked."),
    ],
    data: Annotated[
        list[Path], typer.Argument(metavar="DATA...", help="The log to ask from, as for train; several are one log.")
    ],
    layout: Annotated[
        str | None, typer.Option(help="What the files are, where their names and content do not tell.")
    ] = None,
    protocol: Annotated[str, typer.Option(help="leave-one-out, temporal or prequential.")] = "leave-one-out",
    keep_seen: Annotated[
        bool, typer.Option("--keep-seen", help="Items that the user took before may be recommended again.")
    ] = False,
    k: Annotated[
        list[int] | None, typer.Option(min=1, max=1000, help="Length of lists; several. [default: 10]")
    ] = None,
    models: Annotated[
        str | None, typer.Option(metavar="NAME,...", help="Models to compare with on the same questions, or all.")
    ] = None,
    against: Annotated[Path | None, typer.Option(metavar="ARTIFACT", help="Another model to compare with.")] = None,
    plot: Annotated[Path | None, typer.Option(metavar="FILE", help="Draw a bar chart: .svg or .png.")] = None,
    warm_up: Annotated[
        float,
        typer.Option(min=0, max=0.99, help="Prequential: share of the log that is only learnt."),
    ] = 0.0,
    known_only: Annotated[
        bool, typer.Option("--known-only", help="Prequential: do not ask for items that nobody took before.")
    ] = False,
    seconds: Annotated[float, typer.Option(min=1, help="Training time for each model compared with.")] = 600.0,
    threads: Annotated[int, typer.Option(min=1, help="Threads for training these.")] = 1,
    seed: Annotated[int, typer.Option(min=0, max=2**31 - 1, help="Same data and seed: same figures.")] = 1,
) -> None:
    """Ask a model which items users took next, among all items, and tell how often it knew.

    What a user has seen is left out of the lists unless --keep-seen is given. Intervals are of 95 %, by bootstrap over
    users; p is that of a paired permutation test against the model.
    """
    from model.artifact import load_artifact  # late: torch
    from model.baselines import BASELINES
    from model.evaluation.compare import ONLINE, Plan
    from model.evaluation.compare import evaluate as compare
    from model.evaluation.plot import check_plot
    from model.evaluation.plot import plot as draw
    from model.evaluation.splits import PROTOCOLS
    from model.training.dataset import load_dataset

    if protocol not in PROTOCOLS:
        raise RefusedError(f"there is no protocol {protocol!r}; take one of {', '.join(PROTOCOLS)}.")
    if plot is not None:
        check_plot(plot)
    learns = artifact == Path(ONLINE) and not artifact.exists()
    model = None if learns else load_artifact(artifact)
    other = None if against is None else load_artifact(against)
    settings = run.settings
    log = load_dataset(data, session_gap_s=settings.state.session_gap_s, layout=layout)
    plan = Plan(
        protocol=protocol,
        seen_filtered=not keep_seen,
        k=tuple(sorted(set(k or (10,)))),
        warm_share=warm_up,
        known_only=known_only,
        seed=seed,
        threads=threads,
        seconds=seconds,
        state=settings.state_settings(),
        ranking=settings.ranking_settings(),
        weights=settings.weight_settings().base,
    )
    document = compare(
        model,
        log,
        plan,
        models=BASELINES,
        wanted=None if models is None else [name.strip() for name in models.split(",") if name.strip()],
        against=other,
        say=run.say,
        warn=lambda text: print(text, file=sys.stderr, flush=True),  # with -q, too
        progress=_now_and_then(run),
    )
    if document["unknown_items"]:
        run.say(f"The model does not know {document['unknown_items']} of the {document['items']} items of the data.")
    if plot is not None:
        draw(document, plot)
        run.say(f"The plot is in {plot}.")
    if run.output is Output.table:
        _table(run, document)
    else:
        run.document(document)


def _table(run: Run, document: dict[str, Any]) -> None:
    seen = "seen items left out" if document["seen_filtered"] else "seen items kept"
    console().print(
        f"{document['protocol']}, {document['questions']} questions of {document['users']} users, "
        f"all {document['items']} items are candidates, {seen}."
    )
    k = document["k"][0]
    rows = []
    for model in document.get("models") or [{"name": "ours", **document}]:
        figures, spans = model["metrics"], model["intervals"]
        row: dict[str, Any] = {"model": model["name"]}
        for name in (f"hr@{k}", f"ndcg@{k}"):
            row[name] = figures[name]
            low, high = spans[name]
            row[f"{name} 95 %"] = "" if low is None else f"{low:.4f}-{high:.4f}"
        for name in ("mrr", "f1"):
            row[f"{name}@{k}"] = figures[f"{name}@{k}"]
        row["accuracy"] = figures["accuracy"]
        for name in ("coverage", "diversity", "novelty", "calibration"):
            row[f"{name}@{k}"] = figures.get(f"{name}@{k}")
        row["p (ndcg)"] = model.get("p_against_ours", {}).get(f"ndcg@{k}")
        rows.append(row)
    run.show(rows)


def _now_and_then(run: Run) -> Callable[[str, str], None]:
    told_s = time.monotonic()

    def tell(model: str, how_far: str) -> None:
        nonlocal told_s
        if time.monotonic() - told_s >= _LINE_EVERY_S:
            told_s = time.monotonic()
            run.say(f"{model}: {how_far}")

    return tell
