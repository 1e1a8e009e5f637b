"""As-of resolution of feed versions equals a naive model, and overlaps are refused exactly where days are shared."""

from __future__ import annotations

import datetime as dt
import itertools
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from ssmd.registry.documents import Endpoint, FeedDocument, FeedVersion
from ssmd.registry.editor_schemas import modeline
from ssmd.registry.integrity import version_in_force
from ssmd.registry.loader import check_tree
from ssmd.registry.rendering import render
from ssmd.registry.tree import tree_of_files

START = dt.date(2026, 1, 1)
DAYS = 30


def day(number: int) -> str:
    return (START + dt.timedelta(days=number)).isoformat()


def feed_of(spans: list[tuple[int, int | None]]) -> FeedDocument:
    return FeedDocument(
        name="feed",
        type="spot",
        status="active",
        versions=tuple(
            FeedVersion(
                effective_from=day(first),
                effective_to=None if last is None else day(last),
                wire=f"wire-{index}",
                endpoints={"prod": Endpoint(rest="r", websocket="w")},
            )
            for index, (first, last) in enumerate(spans)
        ),
    )


def naive(spans: list[tuple[int, int | None]]) -> list[int | None]:
    """Day by day: paint each version over its days, the later over the earlier; an open one paints to the end."""
    painted: list[int | None] = [None] * DAYS
    for index, (first, last) in enumerate(spans):
        for number in range(first, DAYS):
            painted[number] = index if last is None or number <= last else None
    return painted


SPANS = st.lists(st.tuples(st.integers(0, DAYS - 1), st.none() | st.integers(0, DAYS - 1)), min_size=1, max_size=5)


@given(spans=SPANS)
@settings(max_examples=100, deadline=None)
def test_resolution_is_the_naive_models_and_overlaps_are_refused(spans: list[tuple[int, int | None]]) -> None:
    feed = feed_of(spans)
    tree = tree_of_files(Path("exchanges"), {"feeds/feed.yaml": (modeline("feed") + render(feed)).encode()})
    rules = {finding.rule for finding in check_tree(tree)[1]}
    is_reversed = any(last is not None and last < first for first, last in spans)
    shares_days = any(
        following <= first or (last is not None and following <= last)
        for (first, last), (following, _) in itertools.pairwise(spans)
    )
    assert ("bad-interval" in rules, "overlap" in rules) == (is_reversed, shares_days)
    if rules:
        return
    for number, index in enumerate(naive(spans)):
        found = version_in_force(feed, day(number))
        assert (None if found is None else found.wire) == (None if index is None else f"wire-{index}")
