"""The page of a report: one HTML file with figures, plots and tables that needs nothing else.

It holds no script and asks for nothing from outside (its policy forbids both); all texts in it are escaped, for names
of users and items come from events.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from stream.errors import ReplayError
from stream.replay.diff import BINS, CHANCE, Shift
from stream.replay.judge import Quality
from stream.replay.report import SHIFTS, SINGULAR, Report, headline, likeness_rows, quality_rows, shift_row, user_row


def write_html(report: Report, path: Path) -> None:
    """Write the page. Raises ReplayError: the file cannot be written."""
    try:
        path.write_text(html(report), encoding="utf-8")
    except OSError as error:
        raise ReplayError(f"{path}: the report could not be written ({error}); check its space and rights.") from error


def html(report: Report) -> str:
    """The page: figures, plots as inline SVG, tables."""
    diff, quality = report.diff, report.quality
    parts = [f"<h1>{escape(report.title)}</h1>"]
    parts.append(_facts(report))
    parts.append("<ul class=findings>" + "".join(f"<li>{escape(line)}" for line in headline(report)) + "</ul>")
    if quality is not None:
        parts.append("<h2>How good the lists were</h2>")
        parts.append(
            "<p>Each event that speaks for an item asked the user's last list before it for the item's place. "
            f"{quality.questions:,} events asked both sides ({quality.questions_a:,} a, {quality.questions_b:,} b); "
            f"of users without a list yet, a miss: {quality.without_list_a:,} in a, {quality.without_list_b:,} in b. "
            f"Items that stood on any list: {quality.items_shown_a:,} in a, {quality.items_shown_b:,} in b. "
            "Intervals are of 95 %, by bootstrap over users; p is of a paired permutation test over users.</p>"
        )
        parts.append(_quality_plot(quality))
        parts.append(_table(quality_rows(quality)))
    parts.append("<h2>How alike the lists are</h2>")
    if sum(diff.overlap_bins):
        parts.append(_histogram(diff.overlap_bins, f"users by the share of the first {diff.places} places in common"))
    parts.append(_table(likeness_rows(diff)))
    parts.append("<h2>What is shown more and less</h2>")
    parts.append(
        "<p>Share of the places of a list, a place weighing 1 / log2(1 + rank), mean over the users of both sides. "
        f"Raised and lowered is what differs with p below {CHANCE}, corrected for the number of names compared. Shares "
        "add up to 1: what is raised lowers all the rest a little.</p>"
    )
    for kind in SHIFTS:
        shifts: list[Shift] = getattr(diff, kind)
        if shifts:
            parts.append(f"<h3>By {SINGULAR[kind]}</h3>")
            parts.append(_shift_plot(shifts))
            parts.append(_folded("Figures", _table([shift_row(shift) for shift in shifts])))
    parts.append("<h2>Whose lists changed most</h2>")
    parts.append(_table([user_row(user) for user in diff.users]) if diff.users else "<p>Nobody's list changed.</p>")
    for side, examples in (("a", diff.only_a), ("b", diff.only_b)):
        if examples:
            parts.append(f"<p>With a list in {side} only, such as: {escape(', '.join(examples))}</p>")
    return _PAGE.format(title=escape(report.title), body="\n".join(parts))


_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; --a: #8a8f98; --b: #2f6fde; --up: #1a7f4b; --down: #c2410c; --line: #8884; }}
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }}
h1 {{ font-size: 1.5rem; }} h2 {{ font-size: 1.2rem; margin-top: 2rem; }} h3 {{ font-size: 1rem; }}
.findings li:first-child {{ font-weight: 600; }}
table {{ border-collapse: collapse; font-size: 13px; margin: .5rem 0; display: block; overflow-x: auto; }}
th, td {{ text-align: left; padding: .2rem .7rem .2rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }}
td {{ font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }}
svg {{ max-width: 100%; height: auto; display: block; }} svg text {{ font-size: 12px; fill: currentColor; }}
summary {{ cursor: pointer; }}
</style>
</head>
<body>
{body}
</body>
</html>
"""


def _facts(report: Report) -> str:
    rows = [
        {"": name, **{side: facts.get(name, "") for side, facts in (("a", report.a), ("b", report.b))}}
        for name in dict.fromkeys([*report.a, *report.b])
    ]
    log = f"<p>Log: {escape(report.log)}</p>" if report.log else ""
    return log + _table(rows)


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    if not rows:
        return ""
    head = "".join(f"<th>{escape(name)}" for name in rows[0])
    body = "".join("<tr>" + "".join(f"<td>{escape(str(value))}" for value in row.values()) for row in rows)
    return f"<table><thead><tr>{head}<tbody>{body}</table>"


def _folded(heading: str, content: str) -> str:
    return f"<details><summary>{escape(heading)}</summary>{content}</details>"


# --- plots: all in units of the drawing, 720 wide

_WIDTH, _LABELS, _RIGHT, _STEP = 720, 220, 70, 20


def _svg(height: float, parts: Sequence[str], label: str) -> str:
    return (
        f'<svg viewBox="0 0 {_WIDTH} {height:g}" width="{_WIDTH}" role="img" aria-label="{escape(label)}">'
        f"{''.join(parts)}</svg>"
    )


def _line(x1: float, y1: float, x2: float, y2: float, colour: str, width: float = 1.0) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}" stroke-width="{width:g}"/>'


def _bar(x: float, y: float, width: float, height: float, colour: str) -> str:
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(width, 0.5):.1f}" height="{height:.1f}" fill="{colour}"/>'


def _text(x: float, y: float, text: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _short(text: str, most: int = 30) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _quality_plot(quality: Quality) -> str:
    """Two bars a metric, with their intervals."""
    told = [one for one in quality.metrics if one.a == one.a]
    top = max([max(one.a_interval.high, one.b_interval.high) for one in told], default=0.0) or 1.0
    scale = (_WIDTH - _LABELS - _RIGHT) / top
    parts = []
    for row, one in enumerate(told):
        y = row * 2.2 * _STEP + 4
        parts.append(_text(_LABELS - 8, y + _STEP, one.name, "end"))
        sides = (("a", one.a, one.a_interval, "var(--a)"), ("b", one.b, one.b_interval, "var(--b)"))
        for place, (side, mean, span, colour) in enumerate(sides):
            at = y + place * _STEP
            parts.append(_bar(_LABELS, at + 3, mean * scale, _STEP - 6, colour))
            middle = at + _STEP / 2
            parts.append(
                _line(_LABELS + span.low * scale, middle, _LABELS + span.high * scale, middle, "currentColor", 2)
            )
            parts.append(_text(_LABELS + span.high * scale + 6, middle + 4, f"{side} {mean:.4f}"))
    return _svg(len(told) * 2.2 * _STEP + 8, parts, "metrics of a and b with their intervals")


def _shift_plot(shifts: Sequence[Shift]) -> str:
    """A bar to the right where b shows more, to the left where less, with its interval."""
    far = max(max(abs(shift.low), abs(shift.high)) for shift in shifts) or 1.0
    middle = _LABELS + (_WIDTH - _LABELS - _RIGHT) / 2
    scale = (_WIDTH - _LABELS - _RIGHT) / 2 / far
    height = len(shifts) * _STEP
    parts = [_line(middle, 0, middle, height, "var(--line)")]
    for row, shift in enumerate(shifts):
        y = row * _STEP
        colour = {"raised": "var(--up)", "lowered": "var(--down)"}.get(shift.verdict, "var(--a)")
        width = abs(shift.difference) * scale
        parts.append(_text(_LABELS - 8, y + 14, _short(shift.name), "end"))
        parts.append(_bar(middle - (width if shift.difference < 0 else 0.0), y + 4, width, _STEP - 8, colour))
        at = y + _STEP / 2
        parts.append(_line(middle + shift.low * scale, at, middle + shift.high * scale, at, "currentColor"))
        parts.append(_text(_WIDTH, y + 14, f"{shift.difference * 100:+.2f}", "end"))
    return _svg(height, parts, "change of exposure, in points of a hundred, with intervals")


def _histogram(counts: Sequence[int], label: str) -> str:
    height, base = 120, 130
    top = max(counts)
    step = (_WIDTH - 40) / len(counts)
    parts = [_line(20, base, _WIDTH - 20, base, "var(--line)")]
    for place, count in enumerate(counts):
        tall = count / top * height
        parts.append(_bar(20 + place * step + 1, base - tall, step - 2, tall, "var(--b)"))
    parts += [_text(20 + share * step * BINS, base + 16, f"{share:.0%}", "middle") for share in (0.0, 0.5, 1.0)]
    parts.append(_text(_WIDTH / 2, base + 34, f"{label}; the highest bar: {top:,} users", "middle"))
    return _svg(base + 42, parts, label)
