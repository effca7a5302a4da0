"""What a comparison found: as plain data, in sentences, and as tables for a terminal or a page (stream.replay.page)."""

from __future__ import annotations

from typing import Any

import msgspec

from stream.replay.diff import PERSISTENCE, ChangedUser, Diff, Shift
from stream.replay.judge import Quality

Row = dict[str, Any]


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """A comparison of a and b."""

    title: str
    a: dict[str, str]
    """What a is: model, settings, folder ..., in the order to be told."""
    b: dict[str, str]
    log: str = ""
    """What was replayed."""
    quality: Quality | None = None
    """How good the lists were; None where only lists are compared."""
    diff: Diff

    def document(self) -> dict[str, Any]:
        """All of it as JSON values; what is no number is None."""
        plain: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(self))
        return plain


SINGULAR = {
    "categories": "category",
    "items": "item",
    "reasons": "reason",
    "interests": "interest",
    "strategies": "strategy",
}
"""Fields of a diff that hold shifts, and what one of each is called."""
SHIFTS = tuple(SINGULAR)
_SIDES = ("better", "worse")


def headline(report: Report) -> list[str]:
    """The findings in sentences, the most important first."""
    found = []
    quality, diff = report.quality, report.diff
    if quality is not None:
        found.append(
            f"Verdict: b is {quality.verdict}." if quality.verdict in _SIDES else f"Verdict: {quality.verdict}."
        )
        found.append(f"Of {quality.questions:,} events asked: {quality.because}.")
    if not diff.users_both:
        found.append(f"No user has a list in both: {diff.users_a:,} have one in a, {diff.users_b:,} in b.")
        return found
    alone = f"; {diff.users_a - diff.users_both:,} in a only, {diff.users_b - diff.users_both:,} in b only"
    found.append(f"{diff.users_both:,} users have a list in both{alone}.")
    found.append(
        f"{_percent(diff.changed)} of the lists changed, {_percent(diff.changed_set)} in their items; the first "
        f"{diff.places} places have {_percent(list(diff.overlap.values())[-1].mean)} in common."
    )
    for kind, one in (("category", diff.categories), ("item", diff.items)):
        for word in ("raised", "lowered"):
            named = [shift for shift in one if shift.verdict == word]
            if named:
                found.append(f"Most {word} {kind}: {_shift_text(named[0])}.")
    return found


def tables(report: Report, rows: int = 10) -> list[tuple[str, list[Row]]]:
    """Headings, each with the rows of a table; `rows` at most of each. Empty tables are left out."""
    found: list[tuple[str, list[Row]]] = []
    if report.quality is not None:
        found.append(("Quality of lists, event by event", quality_rows(report.quality)))
    diff = report.diff
    found.append(("Likeness of lists, over users", likeness_rows(diff)))
    for kind in SHIFTS:
        shifts: list[Shift] = getattr(diff, kind)
        found.append((f"Share of places by {SINGULAR[kind]}", [shift_row(shift) for shift in shifts[:rows]]))
    found.append(("Users whose lists changed most", [user_row(user) for user in diff.users[:rows]]))
    return [(heading, made) for heading, made in found if made]


def quality_rows(quality: Quality) -> list[Row]:
    """One row a metric."""
    return [
        {
            "metric": one.name,
            "a": _number(one.a),
            "a 95 %": _span(one.a_interval.low, one.a_interval.high),
            "b": _number(one.b),
            "b 95 %": _span(one.b_interval.low, one.b_interval.high),
            "b - a": _signed(one.difference),
            "95 %": _span(one.interval.low, one.interval.high, signed=True),
            "p": _chance(one.p),
        }
        for one in quality.metrics
    ]


def likeness_rows(diff: Diff) -> list[Row]:
    """One row a measure of how alike two lists of a user are."""
    measures = {f"overlap@{k}": mean for k, mean in diff.overlap.items()}
    measures["Kendall's tau"] = diff.kendall
    measures[f"rank-biased overlap (p = {PERSISTENCE})"] = diff.rank_biased_overlap
    return [
        {"measure": name, "mean": f"{mean.mean:.4f}", "95 %": _span(mean.low, mean.high)}
        for name, mean in measures.items()
        if mean.mean is not None
    ]


def shift_row(shift: Shift) -> Row:
    """A shift of exposure."""
    return {
        "name": shift.name,
        "a": _percent(shift.a),
        "b": _percent(shift.b),
        "b - a": f"{shift.difference * 100:+.2f}",
        "95 %": f"{shift.low * 100:+.2f} to {shift.high * 100:+.2f}",
        "p": _chance(shift.p),
        "": shift.verdict,
    }


def user_row(user: ChangedUser) -> Row:
    """A user whose list changed."""
    return {
        "user": user.user,
        "rank-biased overlap": f"{user.rank_biased_overlap:.3f}",
        "overlap": f"{user.overlap:.3f}",
        "gone": ", ".join(user.gone),
        "new": ", ".join(user.new),
    }


def _shift_text(shift: Shift) -> str:
    return (
        f"{shift.name}, from {_percent(shift.a)} to {_percent(shift.b)} of the places "
        f"({shift.difference * 100:+.2f} points, 95 % interval {shift.low * 100:+.2f} to {shift.high * 100:+.2f})"
    )


def _number(value: float | None) -> str:
    return "" if value is None or value != value else f"{value:.4f}"


def _signed(value: float) -> str:
    return "" if value != value else f"{value:+.4f}"


def _span(low: float | None, high: float | None, *, signed: bool = False) -> str:
    if low is None or high is None or low != low:
        return ""
    return f"{low:+.4f} to {high:+.4f}" if signed else f"{low:.4f} to {high:.4f}"


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.2%}"


def _chance(p: float) -> str:
    return "" if p != p else "< 0.0001" if p < 1e-4 else f"{p:.4f}"
