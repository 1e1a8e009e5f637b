"""One WebSocket client: its handshake is done, frames go out, commands come in.

Outgoing data frames are framed here and written in batches, which is what makes capture speed possible; everything else
of RFC 6455 (masking, fragments, control frames, the closing handshake) is `websockets`' protocol without I/O.
"""

from __future__ import annotations

import asyncio
import struct
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Protocol

from websockets.exceptions import ProtocolError
from websockets.frames import Frame, Opcode
from websockets.protocol import State
from websockets.server import ServerProtocol

from ssmd.services.simulator.config import FaultOrder
from ssmd.services.simulator.faults import Faults

HEARTBEAT = b"heartbeat"
_TEXT, _BINARY = 0x81, 0x82
_CLOSE_DEADLINE_S = 5.0
_HELD_MAX = 65_536
_TERMINAL = frozenset({"channel-error", "buffer-overflow"})
_BAD_JSON = b'{"type":"orderbook_delta","sid":1,"seq":\n'
_UNKNOWN_TYPE = b'{"type":"simulated_unknown_type","msg":{"note":"made by the simulator"}}\n'


class Feed(Protocol):
    """What a connection is fed by, as far as the connection sees it."""

    def command(self, connection: Connection, text: bytes) -> None:
        """The client sent a text message."""
        ...

    def terminal(self, connection: Connection, code: int) -> list[bytes]:
        """End the subscriptions; the error frames that say so."""
        ...

    def detach(self, connection: Connection) -> None:
        """The connection is gone; told once."""
        ...


def encode(payload: bytes, *, binary: bool = False) -> bytes:
    """One unfragmented, unmasked data frame."""
    first, length = _BINARY if binary else _TEXT, len(payload)
    if length < 126:
        return b"%c%c%b" % (first, length, payload)
    if length < 65_536:
        return struct.pack(">BBH", first, 126, length) + payload
    return struct.pack(">BBQ", first, 127, length) + payload


def encode_with(protocol: ServerProtocol, payload: bytes, *, binary: bool = False) -> bytes:
    """As `encode`, through the extensions the client and we agreed on."""
    if not protocol.extensions:
        return encode(payload, binary=binary)
    frame = Frame(Opcode.BINARY if binary else Opcode.TEXT, payload)
    return frame.serialize(mask=False, extensions=protocol.extensions)


class Connection:
    """An open connection. `number` counts accepted ones from 1."""

    def __init__(
        self,
        number: int,
        protocol: ServerProtocol,
        transport: asyncio.Transport,
        feed: Feed,
        faults: Faults,
        ping_s: float,
        pong_deadline_s: float,
    ) -> None:
        self.number = number
        self.frames_sent = 0
        self.cause = ""
        self._protocol = protocol
        self._transport = transport
        self._feed = feed
        self._faults = faults
        self._ping_s = ping_s
        self._pong_deadline_s = pong_deadline_s
        self._loop = asyncio.get_running_loop()
        self._unanswered_since = 0.0  # when the oldest ping without an answer went out; 0 = none
        self._writable = asyncio.Event()
        self._writable.set()
        self._socket_full = False
        self._stalled = False
        self._held: deque[bytes] = deque()
        self._swapped: bytes = b""
        self._message: list[bytes] = []
        self._timers: dict[str, asyncio.TimerHandle] = {"ping": self._loop.call_later(ping_s, self._ping)}

    @property
    def open(self) -> bool:
        """Whether frames can still be sent."""
        return not self.cause and self._protocol.state is State.OPEN

    @property
    def careful(self) -> bool:
        """Whether messages should come one by one, because a fault waits for a certain one."""
        return not self._faults.quiet

    @property
    def buffered(self) -> int:
        """Bytes handed to the socket's buffer that it has not taken, plus held frames."""
        return self._transport.get_write_buffer_size() + sum(map(len, self._held))

    async def writable(self) -> bool:
        """Wait until the client has read enough (its pong deadline bounds this wait); False when the connection is gone."""
        await self._writable.wait()
        return self.open

    def deliver(self, payloads: Sequence[bytes]) -> int:
        """Hand text messages to the socket, through the faults; how many were taken before the connection went.

        A message that a fault swallows counts as taken.
        """
        if not self.open:
            return 0
        if self._faults.quiet and not self._stalled and not self._swapped:
            self._write([self._encoded(payload) for payload in payloads])
            return len(payloads)
        terminal: list[FaultOrder] = []
        for taken, payload in enumerate(payloads):
            order = self._faults.on_frame()
            self._one(payload, order)
            if order is not None and order.kind in _TERMINAL:
                terminal.append(order)
            elif order is not None:
                self.strike(order)
            if not self.open:
                return taken + 1
        # The numbers of these messages are given already: what ends their subscription comes after the last of them.
        for order in terminal:
            self.strike(order)
        return len(payloads)

    def deliver_binary(self, payload: bytes) -> None:
        """Hand a binary message to the socket (no faults)."""
        if self.open:
            self._write([encode_with(self._protocol, payload, binary=True)])

    def strike(self, order: FaultOrder) -> bool:
        """Do at once what needs no frame; False when `order` is of a kind that does."""
        match order.kind:
            case "drop-connection":
                self.drop("fault: drop-connection")
            case "stall":
                self._stall(order.stall_ms)
            case "channel-error":
                self._write([self._encoded(frame) for frame in self._feed.terminal(self, 10)])
            case "buffer-overflow":
                self.overflow()
            case _:
                return False
        return True

    def overflow(self) -> None:
        """What a reader too slow gets: error 25 on each sequenced subscription."""
        self._write([self._encoded(frame) for frame in self._feed.terminal(self, 25)])

    def close(self, code: int, reason: str) -> None:
        """Begin the closing handshake after what is buffered; a client that does not answer is dropped."""
        if not self.open:
            return
        if self._swapped:
            self._write([self._swapped])
            self._swapped = b""
        self._protocol.send_close(code, reason)
        self._flush_protocol()
        self._timers["close"] = self._loop.call_later(_CLOSE_DEADLINE_S, self.drop, "no answer to the close")

    def drop(self, cause: str) -> None:
        """End it without a word."""
        if not self.cause:
            self.cause = cause
            self._transport.abort()

    # Called by the listener.

    def received(self, data: bytes) -> None:
        """Bytes from the client."""
        self._protocol.receive_data(data)
        for event in self._protocol.events_received():
            if isinstance(event, Frame):
                self._frame(event)
        self._flush_protocol()

    def ended(self) -> None:
        """The client will send no more."""
        self._protocol.receive_eof()
        self._flush_protocol()

    def lost(self, cause: str) -> None:
        """The transport is gone."""
        self.cause = self.cause or cause
        for timer in self._timers.values():
            timer.cancel()
        self._writable.set()
        self._feed.detach(self)

    def full(self, *, full: bool) -> None:
        """The socket's buffer is above (below) its high (low) mark."""
        self._socket_full = full
        self._settle_writable()

    # Inside.

    def _frame(self, frame: Frame) -> None:
        self._unanswered_since = 0.0
        if frame.opcode in {Opcode.TEXT, Opcode.CONT, Opcode.BINARY}:
            self._message.append(bytes(frame.data))
            if frame.fin:
                text = b"".join(self._message)
                self._message.clear()
                self._feed.command(self, text)

    def _one(self, payload: bytes, order: FaultOrder | None) -> None:
        frame = self._encoded(payload)
        swapped, self._swapped = self._swapped, b""
        out: Iterable[bytes] = (frame, swapped) if swapped else (frame,)
        match None if order is None else order.kind:
            case "drop-frame":
                out = (swapped,) if swapped else ()
            case "duplicate-frame":
                out = (frame, frame, swapped) if swapped else (frame, frame)
            case "reorder-frames":
                out, self._swapped = ((swapped,) if swapped else ()), frame
            case "bad-json":
                out = (self._encoded(_BAD_JSON), *out)
            case "unknown-type":
                out = (self._encoded(_UNKNOWN_TYPE), *out)
            case _:
                pass
        self._write(list(out))

    def _encoded(self, payload: bytes) -> bytes:
        return encode_with(self._protocol, payload)

    def _write(self, frames: list[bytes]) -> None:
        if not self.open or not frames:
            return
        if self._stalled:
            self._held.extend(frames)
            if len(self._held) > _HELD_MAX:
                self.drop("stalled with too many frames held")
            return
        self.frames_sent += len(frames)
        self._transport.write(b"".join(frames))

    def _stall(self, stall_ms: int) -> None:
        self._stalled = True
        self._settle_writable()
        if stall_ms:
            self._timers["stall"] = self._loop.call_later(stall_ms / 1_000, self.unstall)

    def unstall(self) -> None:
        """End a stall; what was held goes out."""
        self._stalled = False
        self._unanswered_since = 0.0
        held = list(self._held)
        self._held.clear()
        self._write(held)
        self._settle_writable()

    def _settle_writable(self) -> None:
        if self._socket_full or self._stalled:
            self._writable.clear()
        else:
            self._writable.set()

    def _ping(self) -> None:
        if not self.open:
            return
        if not self._stalled:
            now = self._loop.time()
            self._unanswered_since = self._unanswered_since or now
            if now - self._unanswered_since >= self._pong_deadline_s:
                self.drop(f"no pong for {self._pong_deadline_s} s")
                return
            self._protocol.send_ping(HEARTBEAT)
            self._flush_protocol()
        self._timers["ping"] = self._loop.call_later(self._ping_s, self._ping)

    def _flush_protocol(self) -> None:
        for data in self._protocol.data_to_send():
            if self._stalled:
                continue  # a stalled venue does not answer pings either
            if data:
                self._transport.write(data)
            else:
                self._transport.close()
        if self._protocol.state is State.CLOSED and not self.cause:
            error = self._protocol.parser_exc
            self.cause = str(error) if isinstance(error, ProtocolError) else "closed"
