"""A client's queue: frames, bounds, an exact account of what was lost."""

from __future__ import annotations

from collections import Counter

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from ssmd.gateway.client_queue import FRAME_MESSAGES_MAX, ClientQueue, QueueLimits


def none(_: str) -> str | None:
    return None


@given(st.lists(st.tuples(st.sampled_from("ABC"), st.integers(1, 40)), max_size=60), st.integers(1, 20), st.integers(1, 400))
def test_taken_and_lost_together_are_all_that_was_offered(offers: list[tuple[str, int]], most: int, most_bytes: int) -> None:
    queue = ClientQueue(QueueLimits(messages_max=most, bytes_max=most_bytes))
    taken: Counter[str] = Counter()
    for at, (ticker, size) in enumerate(offers):
        queue.offer(f'["{ticker}",{"1" * size}]', (ticker,))
        assert len(queue) <= most
        assert queue.size_bytes <= max(most_bytes, 60)
        if at % 7 == 6 and (frame := queue.take(none)):
            taken.update(piece[0] for piece in msgspec.json.decode(frame))
    while frame := queue.take(none):
        taken.update(piece[0] for piece in msgspec.json.decode(frame))
    assert taken + Counter(queue.lost or {}) == Counter(ticker for ticker, _ in offers)
    assert queue.size_bytes == 0


def test_messages_about_the_connection_are_not_counted_as_lost() -> None:
    queue = ClientQueue(QueueLimits(messages_max=2))
    assert [queue.offer("{}", (name,)) for name in ("", "A", "", "B")] == [True, True, False, False]
    assert queue.lost == {"A": 1, "B": 1}
    assert queue.take(none) == ""


def test_owed_snapshots_come_behind_all_that_is_queued() -> None:
    queue = ClientQueue(QueueLimits())
    queue.owed.update(dict.fromkeys(("A", "gone", "B")))
    for at in range(FRAME_MESSAGES_MAX + 1):
        queue.offer(str(at), ("A",))
    snapshots = {"A": '"a"', "B": '"b"'}
    assert msgspec.json.decode(queue.take(snapshots.get)) == list(range(FRAME_MESSAGES_MAX))
    assert msgspec.json.decode(queue.take(snapshots.get)) == [FRAME_MESSAGES_MAX, "a", "b"]
    assert queue.is_empty
    assert queue.take(snapshots.get) == ""


def test_messages_offered_together_are_counted_one_by_one() -> None:
    queue = ClientQueue(QueueLimits(messages_max=3))
    assert queue.offer("1,2,3,4", ("A", "A", "B", "A"))
    assert (len(queue), queue.size_bytes) == (4, 7)
    assert not queue.offer("5,6", ("B", "C"))
    assert queue.lost == {"A": 3, "B": 2, "C": 1}
