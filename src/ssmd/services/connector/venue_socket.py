"""One WebSocket connection to a venue: the home of picows.

Frames are handed over in the callback that read them off the socket, so their receive time is when they came, and
nothing is queued between socket and tape. A watchdog of its own, fed by whatever arrives, ends a connection that has
gone quiet: a ping that was sent proves nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, NamedTuple

from picows import WSError, WSFrame, WSHandshakeError, WSListener, WSMsgType, WSTransport, ws_connect

from ssmd.errors import Misconfigured, Unavailable

HANDSHAKE_TIMEOUT_S: Final = 10.0
CLOSE_TIMEOUT_S: Final = 2.0
WATCHES: Final = 8
LOOK_MAX_S: Final = 0.25
"""How often the watchdog looks: WATCHES times per stale time, at least every LOOK_MAX_S; it is twice that late at most."""
_TEXT: Final = WSMsgType.TEXT
_BINARY: Final = WSMsgType.BINARY
_CONTINUATION: Final = WSMsgType.CONTINUATION


class Ending(NamedTuple):
    """How a connection ended; causes are those of `schemas.control.Disconnected`."""

    cause: str
    code: int = 0
    reason: str = ""
    evidence: str = ""


class VenueSocket(WSListener):
    """See the module. Made by `open`.

    Args:
        on_frame: takes each whole payload; what it raises ends the connection with cause "tape-full".
    """

    def __init__(self, on_frame: Callable[[bytes], None], stale_s: float) -> None:
        super().__init__()
        self._on_frame = on_frame
        self._stale_s = stale_s
        self._transport: WSTransport | None = None
        self._fragments: list[bytes] = []
        self._ending: Ending | None = None
        self._ended = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._was_heard = True
        self._last_activity_s = self._loop.time()
        self._watch = self._loop.create_task(self._watchdog())

    @classmethod
    async def open(
        cls,
        url: str,
        headers: dict[str, str],
        *,
        on_frame: Callable[[bytes], None],
        is_fatal: Callable[[int, bytes], bool],
        read_limit_bytes: int,
        stale_s: float,
    ) -> VenueSocket:
        """Connect and shake hands once.

        Raises:
            Misconfigured: refused for a reason that will not go away (`is_fatal`), or the url is none.
            Unavailable: not reached, or refused for now.
        """
        socket = cls(on_frame, stale_s)
        try:
            await ws_connect(
                lambda: socket,
                url,
                extra_headers=headers,
                websocket_handshake_timeout=HANDSHAKE_TIMEOUT_S,
                max_frame_size=read_limit_bytes,
                enable_auto_ping=False,
                # Its pongs would keep the pings to themselves, and they are what is heard of a quiet market.
                enable_auto_pong=False,
            )
        except WSHandshakeError as error:
            socket._watch.cancel()
            raise _refused(url, error, is_fatal) from error
        except (OSError, WSError, TimeoutError) as error:
            socket._watch.cancel()
            raise Unavailable(f"cannot reach the venue at {url}: {error or type(error).__name__}") from error
        except BaseException:
            socket._watch.cancel()
            raise
        if socket._transport is None or socket._ended.is_set():
            # picows takes a connection that is reset in the middle of its handshake for one that is made.
            socket._watch.cancel()
            raise Unavailable(f"the venue at {url} ended the connection while it was being made")
        return socket

    def on_ws_connected(self, transport: WSTransport) -> None:
        self._transport = transport

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        self._was_heard = True
        kind = frame.msg_type
        if kind is _TEXT and frame.fin and self._ending is None:
            # Nearly all frames; no call between the socket and the tape that can be spared.
            try:
                self._on_frame(frame.get_payload_as_bytes())
            except Unavailable as error:
                self.abort("tape-full", error.message)
        elif kind in (_TEXT, _BINARY, _CONTINUATION):
            payload = frame.get_payload_as_bytes()
            if not frame.fin or self._fragments:
                self._fragments.append(payload)
                if not frame.fin:
                    return
                payload = b"".join(self._fragments)
                self._fragments.clear()
            self._take(payload)
        elif kind == WSMsgType.PING:
            transport.send_pong(frame.get_payload_as_bytes())
        elif kind == WSMsgType.CLOSE:
            code = frame.get_close_code()
            reason = bytes(frame.get_close_message() or b"").decode("utf-8", "replace")
            self._end(Ending("closed-by-venue", int(code.value), reason, f"the venue sent close code {int(code.value)}"))
            transport.send_close(code)
            transport.disconnect()

    def _take(self, payload: bytes) -> None:
        if self._ending is not None:
            return
        try:
            self._on_frame(payload)
        except Unavailable as error:
            self.abort("tape-full", error.message)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self._end(
            Ending("connection-lost", evidence=str(transport.close_handshake or "the transport closed without a close frame"))
        )
        self._ended.set()
        self._watch.cancel()

    def _end(self, ending: Ending) -> None:
        self._ending = self._ending or ending

    async def _watchdog(self) -> None:
        look_s = min(self._stale_s / WATCHES, LOOK_MAX_S)
        looked_s = self._loop.time()
        while True:
            await asyncio.sleep(look_s)
            now_s = self._loop.time()
            was_away = now_s - looked_s > self._stale_s / 2
            looked_s = now_s
            if self._was_heard or was_away:
                # After a halt of our own (a suspended machine) what came meanwhile is still to be read.
                self._was_heard, self._last_activity_s = False, now_s
            elif now_s - self._last_activity_s >= self._stale_s:
                self.abort("stale", f"no frame and no ping for {now_s - self._last_activity_s:.1f} s")
                return

    def send(self, payload: bytes) -> None:
        """Send one text frame; on a dead connection nothing happens, its end is told by `wait_ended`."""
        if self._transport is not None and self._ending is None:
            self._transport.send(_TEXT, payload)

    def abort(self, cause: str, evidence: str) -> None:
        """End it at once, from our side."""
        self._end(Ending(cause, evidence=evidence))
        if self._transport is not None:
            self._transport.disconnect(graceful=False)
        # It is over even if the transport should never say so.
        self._loop.call_later(CLOSE_TIMEOUT_S, self._ended.set)

    async def wait_ended(self) -> Ending:
        """Wait for the end; how it ended."""
        await self._ended.wait()
        return self._ending or Ending("connection-lost")

    async def close(self, cause: str, evidence: str = "") -> None:
        """End it from our side, within a deadline. Safe to call twice."""
        self._end(Ending(cause, evidence=evidence))
        if self._transport is None or self._ended.is_set():
            return
        try:
            self._transport.send_close()
            self._transport.disconnect()
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await self._ended.wait()
        except TimeoutError:
            self.abort(cause, evidence)
            await self._ended.wait()


def _refused(url: str, error: WSHandshakeError, is_fatal: Callable[[int, bytes], bool]) -> Misconfigured | Unavailable:
    status = int(error.response.status) if error.response is not None else 0
    body = bytes(error.raw_body or b"")
    told = body[:200].decode("utf-8", "replace").strip()
    text = f"the venue at {url} refused the handshake: {status or 'no HTTP answer'} {told}".rstrip()
    if is_fatal(status, body):
        return Misconfigured(text, mend="check the key id and the private key of this environment")
    return Unavailable(text)
