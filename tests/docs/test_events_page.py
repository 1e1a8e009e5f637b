"""The event catalogue of the reference is what the types say."""

from __future__ import annotations

from pathlib import Path

from ssmd.domain.catalogue import CATALOGUE, RELEASED
from ssmd.domain.event_reference import render

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "events.md"


def test_the_page_is_fresh() -> None:
    assert PAGE.read_text(encoding="utf-8") == render(), "python -m ssmd.domain.event_reference > docs/reference/events.md"


def test_every_type_is_on_it_with_its_standing() -> None:
    page = render()
    for tag in CATALOGUE.tags:
        standing = "released" if tag in RELEASED else "draft"
        assert f"### `{tag}`\n\n{standing}\n" in page
