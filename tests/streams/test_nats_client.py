"""Taking a block of the NATS protocol apart: whatever the pieces it comes in, each message once, whole and in order."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from nats.errors import ProtocolError

from ssmd.streams.nats_client import Arrived, BulkClient, PromptClient, message_id_of

BULK = 7
Sent = tuple[int, str, str, bytes, bytes]
"""(number of the subscription, subject, reply subject, header block, body)."""

_BODIES = st.one_of(st.binary(max_size=40), st.sampled_from([b"\r\n", b"HMSG a 7 r 1 2\r\n", b"PING\r\n", b"x" * 5000]))
_MESSAGES = st.tuples(
    st.sampled_from([BULK, 8]),
    st.sampled_from(["a", "dev.journal.capture.kalshi"]),
    st.sampled_from(["", "$JS.ACK.s.c.1.2.3.4.5"]),
    st.sampled_from([b"", b"NATS/1.0\r\nNats-Msg-Id: 1\r\n\r\n"]),
    _BODIES,
)


class Recording(BulkClient):
    """Keeps what arrives, and by which way."""

    def __init__(self) -> None:
        super().__init__()
        self.arrived: list[Sent] = []
        self.pings = 0
        self.in_bulk[str(BULK)] = self.take

    async def take(self, messages: list[Arrived]) -> None:
        self.arrived += [(BULK, subject, reply, headers, body) for subject, reply, body, headers in messages]

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes) -> None:
        self.arrived.append((sid, subject.decode(), reply.decode(), headers or b"", data))

    async def _process_ping(self) -> None:
        self.pings += 1


def wire(message: Sent) -> bytes:
    sid, subject, reply, headers, body = message
    words = [subject, str(sid), *([reply] if reply else [])]
    sizes = [str(len(headers)), str(len(headers) + len(body))] if headers else [str(len(body))]
    return f"{'HMSG' if headers else 'MSG'} {' '.join(words + sizes)}\r\n".encode() + headers + body + b"\r\n"


def fed(client: Recording, pieces: list[bytes]) -> None:
    async def feed() -> None:
        parser: Any = client._ps
        for piece in pieces:
            await parser.parse(piece)

    asyncio.run(feed())


@given(st.lists(st.one_of(_MESSAGES, st.none()), max_size=12), st.lists(st.integers(1, 60), min_size=1, max_size=30))
@example([(BULK, "a", "r", b"", b"x"), None, (BULK, "a", "", b"", b""), (8, "a", "r", b"", b"y")], [1])
def test_messages_arrive_whatever_the_pieces(sent: list[Sent | None], sizes: list[int]) -> None:
    block = b"".join(b"PING\r\n" if message is None else wire(message) for message in sent)
    pieces, at, turn = [], 0, 0
    while at < len(block):
        pieces.append(block[at : at + sizes[turn % len(sizes)]])
        at, turn = at + len(pieces[-1]), turn + 1
    client = Recording()
    fed(client, pieces)
    assert client.arrived == [message for message in sent if message is not None]
    assert client.pings == sent.count(None)


def test_a_line_that_is_no_message_is_a_protocol_error() -> None:
    with pytest.raises(ProtocolError):
        fed(Recording(), [b"MSG a 7 r nine\r\n"])
    with pytest.raises(ProtocolError):
        fed(Recording(), [b"NONSENSE\r\n"])


async def test_the_answer_to_a_ping_that_nobody_waits_for_any_more_ends_nothing() -> None:
    client: Any = PromptClient()
    given_up, waited_for = (asyncio.get_running_loop().create_future() for _ in range(2))
    given_up.cancel()
    client._pongs = [given_up, waited_for]
    await client._ps.parse(b"PONG\r\nPONG\r\n")
    assert (waited_for.result(), client._pongs) == (True, [])


@pytest.mark.parametrize(
    ("headers", "message_id"),
    [
        (b"NATS/1.0\r\nNats-Msg-Id: main.1.7\r\n\r\n", "main.1.7"),
        (b"NATS/1.0\r\nSsmd-Request: a\r\nNats-Msg-Id: 1\r\nTraceparent: b\r\n\r\n", "1"),
        (b"NATS/1.0\r\nNats-Msg-Id:1 \r\n\r\n", "1"),
        (b"NATS/1.0\r\nNats-Msg-Id: \xc3\xa9\r\n\r\n", "\xe9"),
        (b"NATS/1.0\r\nOther: Nats-Msg-Id: 1\r\n\r\n", ""),
        (b"NATS/1.0\r\n\r\n", ""),
        (b"", ""),
    ],
)
def test_the_id_of_a_message_is_found_in_its_headers(headers: bytes, message_id: str) -> None:
    assert message_id_of(headers) == message_id
