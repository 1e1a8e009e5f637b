"""Whole blocks, each once, in order, whatever a publisher in trouble repeats or leaves out for a while."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.gateway.conftest import START_NS, Tape

from ssmd.errors import Malformed
from ssmd.gateway.assembly import BlockAssembler, ReadyBlock
from ssmd.schemas.market_message import parse_message_id
from ssmd.streams.transport import Outgoing, StreamMessage

HOLD_NS = 1_000


def feed(assembler: BlockAssembler, messages: Sequence[Outgoing], first_seq: int = 1, now_ns: int = 0) -> list[ReadyBlock]:
    ready: list[ReadyBlock] = []
    for seq, message in enumerate(messages, first_seq):
        stored = StreamMessage(seq, message.subject, message.payload, message.message_id)
        ready += assembler.take(stored, parse_message_id(message.message_id), now_ns)
    return ready


def overdue(assembler: BlockAssembler, now_ns: int) -> list[ReadyBlock]:
    ready: list[ReadyBlock] = []
    while waiting := assembler.overdue(now_ns):
        for connection in waiting:
            ready += assembler.give_up(connection, now_ns)
    return ready


def places(blocks: Sequence[ReadyBlock]) -> list[tuple[int, list[int]]]:
    """(last n, parts) of each block."""
    return [
        (0 if block.mark is None else block.mark.last_n, [parse_message_id(part.message_id).part for part in block.parts])
        for block in blocks
    ]


def blocks_of(tape: Tape, count: int = 3) -> list[list[Outgoing]]:
    return [tape.block(tape.trade("A"), tape.snapshot("B"), tape.delta("A", 1, 2)) for _ in range(count)]


def test_a_block_is_ready_with_its_mark() -> None:
    assembler = BlockAssembler()
    one, two, _ = blocks_of(Tape())
    assert feed(assembler, one[:-1]) == []
    ready = feed(assembler, one[-1:], 4)
    assert [(block.stream_seq, block.hole, block.since_ns) for block in ready] == [(4, "", 0)]
    assert places(ready) == [(3, [0, 1, 2])]
    (second,) = feed(assembler, two, 5)
    assert (second.stream_seq, second.hole, second.since_ns) == (8, "", START_NS + 3007)
    assert (assembler.held, assembler.duplicates, assembler.holes) == (0, 0, 0)


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(0, 9)), max_size=20))
@settings(max_examples=100, deadline=None)
def test_repeats_from_any_earlier_place_change_nothing(moves: list[tuple[int, int]]) -> None:
    messages = [message for block in blocks_of(Tape(), 5) for message in block]
    sent: list[Outgoing] = []
    at = 0
    for ahead, back in moves:
        sent += messages[at : at + ahead]
        at = max(0, min(at + ahead, len(messages)) - back)
    sent += messages[at:]
    assembler = BlockAssembler()
    ready = feed(assembler, sent)
    assert places(ready) == [(3 * block, [0, 1, 2]) for block in range(1, 6)]
    assert all(block.hole == "" for block in ready)
    assert assembler.duplicates == len(sent) - len(messages)


@given(st.integers(0, 2**32), st.integers(1, 4))
@settings(max_examples=100, deadline=None)
def test_a_part_that_comes_late_is_waited_for(seed: int, lost: int) -> None:
    messages = [message for block in blocks_of(Tape(), 4) for message in block]
    chance = random.Random(seed)
    # The first block is whole: before it a reader cannot know what retention took.
    missing = chance.sample(range(4, len(messages)), lost)
    sent = [message for at, message in enumerate(messages) if at not in missing] + [messages[at] for at in sorted(missing)]
    ready = feed(BlockAssembler(hold_ns=HOLD_NS), sent)
    assert places(ready) == [(3 * block, [0, 1, 2]) for block in range(1, 5)]
    assert all(block.hole == "" for block in ready)


def test_a_missing_part_is_given_up_after_the_hold_and_named() -> None:
    assembler = BlockAssembler(hold_ns=HOLD_NS)
    one, two, three = blocks_of(Tape())
    feed(assembler, one)
    assert feed(assembler, [two[0], *two[2:], *three], 5, now_ns=10) == []
    assert assembler.waiting == "main"
    assert overdue(assembler, HOLD_NS) == []
    ready = overdue(assembler, HOLD_NS + 10)
    assert places(ready) == [(6, [0, 2]), (9, [0, 1, 2])]
    assert [block.hole for block in ready] == [f"block (session {START_NS}, n 4) lacks 1 of 3 messages", ""]
    assert (assembler.waiting, assembler.holes, assembler.held) == ("", 1, 0)
    assert feed(assembler, [two[1]], 12) == []
    assert assembler.duplicates == 1


def test_a_missing_block_and_a_missing_mark_are_named() -> None:
    one, two, three = blocks_of(Tape())
    assembler = BlockAssembler(hold_ns=HOLD_NS)
    feed(assembler, [*one, *three])
    (block,) = overdue(assembler, HOLD_NS)
    assert block.hole == f"after session {START_NS} n 3 comes a block behind session {START_NS} n 6"
    assembler = BlockAssembler(hold_ns=HOLD_NS)
    feed(assembler, [*one, *two[:-1], *three])
    ready = overdue(assembler, HOLD_NS)
    assert [block.hole for block in ready] == [f"block (session {START_NS}, n 4) has no mark", ""]
    assert places(ready) == [(0, [0, 1, 2]), (9, [0, 1, 2])]


def test_an_unfinished_block_at_the_end_is_no_hole() -> None:
    assembler = BlockAssembler(hold_ns=HOLD_NS)
    one, two, _ = blocks_of(Tape())
    feed(assembler, [*one, *two[:-1]])
    assert overdue(assembler, 10 * HOLD_NS) == []
    assert assembler.waiting == ""


def test_reading_may_begin_inside_a_block() -> None:
    assembler = BlockAssembler()
    one, two, _ = blocks_of(Tape())
    ready = feed(assembler, [*one[2:], *two])
    assert places(ready) == [(3, [2]), (6, [0, 1, 2])]
    assert [block.hole for block in ready] == ["", ""]


def test_connections_do_not_wait_for_each_other() -> None:
    assembler = BlockAssembler()
    left, right = blocks_of(Tape("left")), blocks_of(Tape("right"))
    feed(assembler, [*left[0], *right[0]])
    ready = feed(assembler, [*left[1][1:], *right[1]])
    assert [(block.connection, block.hole) for block in ready] == [("right", "")]


def test_a_new_session_follows_on_and_a_new_tape_is_a_hole() -> None:
    tape = Tape()
    assembler = BlockAssembler()
    feed(assembler, tape.block(tape.trade("A")))
    tape.session, tape.n = START_NS + 5, 0
    (next_session,) = feed(assembler, tape.block(tape.trade("A")))
    assert next_session.hole == ""
    anew = Tape(session=START_NS + 9)
    (block,) = feed(assembler, anew.block(anew.trade("A")))
    assert block.hole == f"a new tape begins after session {START_NS + 5} n 1"


def test_held_messages_are_bounded() -> None:
    assembler = BlockAssembler(hold_ns=10**18, messages_max=7)
    one, two, *rest = blocks_of(Tape(), 9)
    feed(assembler, one)
    ready = feed(assembler, [*two[1:], *(message for block in rest for message in block)])
    assert ready[0].hole == f"block (session {START_NS}, n 4) lacks 1 of 3 messages"
    assert [block.hole for block in ready[1:]] == [""] * 7
    assert assembler.held == 0


def test_a_mark_that_is_none_is_malformed_and_changes_nothing() -> None:
    assembler = BlockAssembler()
    one, two, _ = blocks_of(Tape())
    feed(assembler, one)
    with pytest.raises(Malformed, match="not a mark"):
        feed(assembler, [*two[:-1], two[-1]._replace(payload=b"{}")])
    assert places(feed(assembler, two[-1:])) == [(6, [0, 1, 2])]
