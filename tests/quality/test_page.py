"""`quality.page`: strips are drawn where the spans are, no hole is too short to be seen, what a venue names is text."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Any

import msgspec
from tests.quality.test_measure import A, B, at, quiet_day, report

from ssmd.quality import page as page_module
from ssmd.quality.coverage import Span
from ssmd.quality.page import page
from ssmd.quality.report import QualityReport

SECOND = 1_000_000_000


class Read(HTMLParser):
    """What stands in the page: strips (label -> rects), and every tag that was opened."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.strips: dict[str, list[dict[str, str | None]]] = {}
        self.tags: set[str] = set()
        self.links: list[str] = []
        self._label = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags.add(tag)
        self.links += [value or "" for name, value in attrs if name in {"src", "href"}]
        if tag == "svg":
            self._label = given.get("aria-label") or ""
            if self._label:
                self.strips[self._label] = []
        elif tag == "rect" and self._label:
            self.strips[self._label].append(given)

    def handle_endtag(self, tag: str) -> None:
        if tag == "svg":
            self._label = ""

    def drawn(self, ticker: str) -> list[tuple[str, float, float]]:
        """(verdict, x, width) of a ticker's strip, behind what is drawn for "not captured"."""
        (rects,) = [rects for label, rects in self.strips.items() if label.startswith(f"{ticker}: ")]
        (first, *rest) = rects
        assert (first["class"], first["width"]) == ("absent", "1000")
        return [(one["class"] or "", float(one["x"] or 0), float(one["width"] or 0)) for one in rest]


def with_spans(found: QualityReport, of: str, **given: Any) -> QualityReport:
    tickers = tuple(msgspec.structs.replace(one, **given) if one.ticker == of else one for one in found.tickers)
    return msgspec.structs.replace(found, tickers=tickers)


def test_a_strip_is_drawn_where_the_ticker_was_covered(day: Any) -> None:
    quiet_day(day)
    read = Read(page(report(day)))
    # The day goes from 0 s to 100 s: a second is ten of the strip's thousand.
    assert read.drawn(A) == [("verified", 10.0, 990.0)]
    assert read.drawn(B) == [("verified", 20.0, 980.0)]
    assert {"svg", "rect", "table", "title"} <= read.tags
    assert read.links == []
    assert "script" not in read.tags


def test_a_hole_of_a_millisecond_is_seen_above_what_is_around_it(day: Any) -> None:
    quiet_day(day)
    hole = Span(at(50), at(50) + 1_000_000, "missing")
    spans = (
        Span(at(0), hole.start_ns, "verified"),
        hole,
        Span(hole.end_ns, at(80), "unverifiable"),
        Span(at(80), at(100), "repaired"),
    )
    told = {"verified_ns": 50 * SECOND, "missing_ns": 1_000_000, "unverifiable_ns": 0, "repaired_ns": 20 * SECOND}
    text = page(with_spans(report(day), A, spans=spans, **told))
    drawn = Read(text).drawn(A)
    assert sorted(drawn) == [
        ("missing", 500.0, 1.5), ("repaired", 800.0, 200.0), ("unverifiable", 500.01, 299.99), ("verified", 0.0, 500.0),
    ]  # fmt: skip
    order = [verdict for verdict, _, _ in drawn]
    assert order.index("missing") > max(order.index("verified"), order.index("unverifiable"))
    assert "missing 12:00:50.000 to 12:00:50.001" in text
    assert text.index(f">{A}</th>") < text.index(f">{B}</th>")  # most missing first


def test_names_are_text(day: Any) -> None:
    quiet_day(day)
    name = '<script>alert("1")</script>&'
    found = with_spans(report(day), A, ticker=name)
    text = page(msgspec.structs.replace(found, reasons=("<i>",), connections=("<b>",)))
    read = Read(text)
    assert not {"script", "i", "b"} & read.tags
    assert any(label.startswith(name) for label in read.strips)


def test_of_many_tickers_the_worst_are_shown_and_the_rest_counted(day: Any, monkeypatch: Any) -> None:
    quiet_day(day)
    monkeypatch.setattr(page_module, "STRIPS_MAX", 1)
    text = page(with_spans(report(day), B, missing_ns=1))
    assert len(Read(text).strips) == 1
    assert f">{B}</th>" in text
    assert "and 1 tickers more" in text
