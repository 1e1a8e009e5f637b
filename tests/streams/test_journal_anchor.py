"""Anchors: the chain over a journal, where it goes on, and what it refuses."""

from __future__ import annotations

import hashlib

import msgspec
import pytest

from ssmd.domain.envelope import Envelope, encode_envelope
from ssmd.errors import Malformed
from ssmd.streams.journal import PoisonEvent, RecordedEvent
from ssmd.streams.journal_anchor import Anchor, RollingDigest, anchor_key, decode_anchor, encode_anchor


def messages(count: int) -> list[RecordedEvent | PoisonEvent]:
    made: list[RecordedEvent | PoisonEvent] = []
    for position in range(1, count + 1):
        if position % 3 == 0:
            made.append(PoisonEvent(position, "dev.journal.x", b"\xff" * position, "no event"))
            continue
        one = Envelope(f"e{position}", "t.v1", "a b", "k%2E", position, 0, "", "", "", "", msgspec.Raw(b"{}"))
        made.append(RecordedEvent(position, one, encode_envelope(one)))
    return made


def test_the_chain_is_what_the_module_says() -> None:
    digest = RollingDigest("dev")
    expected = bytes(32)
    for message in messages(7):
        digest.add(message)
        subject = b"dev.journal.x" if isinstance(message, PoisonEvent) else b"dev.journal.a%20b.k%2E"
        head = expected + message.position.to_bytes(8, "big") + len(subject).to_bytes(4, "big")
        expected = hashlib.sha256(head + subject + message.payload).digest()
        assert digest.sha256 == expected.hex()


@pytest.mark.parametrize("cut", [0, 1, 4, 7])
def test_a_digest_goes_on_from_an_anchor(cut: int) -> None:
    whole, first = RollingDigest("dev"), RollingDigest("dev")
    for message in messages(7):
        whole.add(message)
    for message in messages(cut):
        first.add(message)
    stored = encode_anchor(first.anchor(5))
    second = RollingDigest("dev", decode_anchor(stored))
    for message in messages(7)[cut:]:
        second.add(message)
    assert second.anchor(9) == whole.anchor(9)
    assert decode_anchor(stored) == Anchor(cut, first.sha256, 5)


@pytest.mark.parametrize("position", [1, 2, 4])
def test_a_message_left_out_or_twice_is_refused(position: int) -> None:
    digest = RollingDigest("dev", Anchor(2, "ab" * 32))
    with pytest.raises(Malformed, match=f"the next message is at {position}"):
        digest.add(PoisonEvent(position, "dev.journal.x", b"", ""))


def test_keys_sort_by_position() -> None:
    assert anchor_key("dev.1", 12) == "anchors/dev%2E1/00000000000000000012.json"
    assert sorted([anchor_key("dev", 100), anchor_key("dev", 9)]) == [anchor_key("dev", 9), anchor_key("dev", 100)]


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"{}",
        b'{"position":-1,"sha256":"' + b"0" * 64 + b'"}',
        b'{"position":1,"sha256":"00"}',
        b'{"position":1,"sha256":"\xff"}',
    ],
)
def test_what_is_no_anchor_is_malformed(payload: bytes) -> None:
    with pytest.raises(Malformed, match="not an anchor"):
        decode_anchor(payload)
