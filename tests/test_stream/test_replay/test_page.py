from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from stream.errors import ReplayError
from stream.replay.page import html, write_html
from tests.test_stream.test_replay.comparisons import made_report

EVIL = "<script>alert('x')</script>\"&{0}"


class Page(HTMLParser):
    """Tags and attributes of a page, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_needs_nothing_from_outside() -> None:
    page = Page(html(made_report()))
    assert not {"script", "link", "img", "iframe", "object", "image"} & set(page.tags)
    assert not [name for name, _ in page.attributes if name in ("src", "href", "srcset") or name.startswith("on")]
    assert "url(" not in page.text
    assert ("content", "default-src 'none'; style-src 'unsafe-inline'") in page.attributes


def test_texts_from_events_are_only_texts() -> None:
    page = Page(html(made_report(evil=EVIL)))
    assert "script" not in page.tags
    assert page.text.count(f"c3{EVIL}") >= 2  # in a table and in a sentence, as they are


def test_figures_and_plots_are_there() -> None:
    report = made_report()
    page = Page(html(report))
    assert page.tags.count("svg") == 2 + 5  # metrics, overlap, five kinds of shifts
    for metric in report.quality.metrics if report.quality else ():
        assert f"{metric.difference:+.4f}" in page.text
    assert "Verdict: b is better." in page.text
    assert "ranking.a=1" in page.text


def test_plots_stay_within_their_drawing() -> None:
    page = html(made_report())
    numbers = [float(n) for n in re.findall(r' (?:x|x1|x2|y|y1|y2|width|height)="([-0-9.]+)"', page)]
    assert min(numbers) >= 0.0
    assert not re.search(r"\bnan\b", page, re.IGNORECASE)


def test_a_comparison_without_users_or_questions_is_a_page() -> None:
    page = Page(html(made_report(users=0)))
    assert "No user has a list in both" in page.text
    assert "Nobody" in page.text


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    write_html(made_report(), tmp_path / "report.html")
    assert (tmp_path / "report.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    with pytest.raises(ReplayError, match="could not be written"):
        write_html(made_report(), tmp_path)
