"""How ssmd is connected to a NATS server: one connection, one life.

A `Connection` never reconnects. A client that reconnects by itself sends what it buffered meanwhile, so an append that
timed out could still happen minutes later, and pipelined messages could change their order. Whoever needs to go on
opens another connection and decides there what is still to be done. A request outstanding when the connection is lost
fails at once instead of at its deadline.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import msgspec

from ssmd.errors import Misconfigured, Unavailable
from ssmd.streams.nats_client import Arrived, BulkClient, PromptClient
from ssmd.streams.nats_py import Msg, Subscription, nats
from ssmd.streams.nkeys_url import without_nkey
from ssmd.streams.server_urls import redacted, servers_of

if TYPE_CHECKING:
    from ssmd.streams.nkeys import UserKey

API: Final = "$JS.API."
STATUS_HEADER: Final = "Status"
NO_RESPONDERS: Final = "503"
CLOSE_TIMEOUT_S: Final = 2.0
PING_INTERVAL_S: Final = 20


class ApiRefused(Unavailable):
    """JetStream answered with an error. Whoever knows the code says what it means; to others nothing was done.

    Attributes:
        err_code: JetStream's own number (10071 = wrong last sequence); 0 where it gave none.
    """

    def __init__(self, message: str, *, code: int, err_code: int, mend: str = "") -> None:
        super().__init__(message, mend=mend)
        self.code = code
        self.err_code = err_code


class Connection:
    """See the module. Not thread-safe: one event loop. Made by `open`."""

    def __init__(self, url: str, name: str, *, is_bulk: bool = False) -> None:
        self.url = redacted(url)
        self.name = name
        self.client = BulkClient() if is_bulk else PromptClient()
        self.lost = asyncio.Event()
        """Set when the connection is gone, for whatever reason."""
        self.reason = ""
        """Why it is gone."""
        self._inbox = ""
        self._asked = 0
        self._waiting: dict[str, asyncio.Future[Msg]] = {}
        self._collecting: dict[str, Callable[[Msg], bool]] = {}
        self._when_lost: list[Callable[[], None]] = []

    @classmethod
    async def open(cls, url: str, *, name: str, timeout_s: float, pending_size: int = 0, is_bulk: bool = False) -> Connection:
        """Connect once.

        Args:
            url: one server or several of one cluster, separated by commas; `with_nkey` says who we are there.
            pending_size: bytes buffered before a publisher is held back (nats-py); 0 = no limit, the caller bounds it.
            is_bulk: for reading a stream with `subscribe_in_bulk`.

        Raises:
            Unavailable: nobody answered within `timeout_s`.
            Misconfigured: the server does not let us in, or the url is none.
        """
        servers, key = without_nkey(servers_of(url))
        connection = cls(url, name, is_bulk=is_bulk)
        try:
            await _apart(connection._connect(servers, key, timeout_s, pending_size), timeout_s)
        except (OSError, nats.errors.Error) as error:
            await connection.abandon()
            why = str(error) or type(error).__name__
            if "authorization" in why.lower():
                raise Misconfigured(
                    f"the NATS server at {connection.url} does not let us in: {why}",
                    mend="check the user and password of this server's url in the environment, or SSMD_NATS_NKEY_FILE",
                ) from error
            raise Unavailable(f"no NATS server at {connection.url} within {timeout_s:g} s: {why}") from error
        except BaseException:
            await connection.abandon()
            raise
        return connection

    async def _connect(self, servers: list[str], key: UserKey | None, timeout_s: float, pending_size: int) -> None:
        signed: dict[str, Any] = {}
        if key is not None:
            from ssmd.streams.nkeys import inbox_of  # noqa: PLC0415 - 50 ms that those without a key need not spend

            self.client.use_nkey(key.public)
            signed = {"signature_cb": key.sign, "inbox_prefix": inbox_of(key.public)}
        await self.client.connect(
            servers=servers,
            **signed,
            name=self.name,
            allow_reconnect=False,
            max_reconnect_attempts=1,
            reconnect_time_wait=0,
            connect_timeout=max(1, round(timeout_s)),
            ping_interval=PING_INTERVAL_S,
            pending_size=pending_size,
            error_cb=self._on_error,
            closed_cb=self._on_closed,
        )
        if not self.client.is_connected:
            # nats-py takes the end of the stream, where the server's first PONG was to come, for a success.
            raise nats.errors.UnexpectedEOF
        self._inbox = self.client.new_inbox()
        await self.client.subscribe(f"{self._inbox}.*", cb=self._on_reply, pending_msgs_limit=0, pending_bytes_limit=0)

    @property
    def is_open(self) -> bool:
        return not self.lost.is_set() and self.client.is_connected

    @property
    def max_payload(self) -> int:
        """Bytes the server takes in one message, headers included."""
        return self.client.max_payload

    async def _on_error(self, error: Exception) -> None:
        self.reason = str(error) or type(error).__name__
        if isinstance(error, OSError | nats.errors.UnexpectedEOF | nats.errors.StaleConnectionError):
            self._mark_lost()

    async def _on_closed(self) -> None:
        self._mark_lost()

    def _mark_lost(self) -> None:
        if self.lost.is_set():
            return
        self.lost.set()
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(self._gone())
        self._waiting.clear()
        for tell in self._when_lost:
            tell()

    def when_lost(self, tell: Callable[[], None]) -> None:
        """Call `tell` once, when the connection is gone (at once if it is)."""
        self._when_lost.append(tell)
        if self.lost.is_set():
            tell()

    def _gone(self) -> Unavailable:
        return Unavailable(f"the connection to {self.url} is lost: {self.reason or 'closed'}")

    async def _on_reply(self, msg: Msg) -> None:
        token = msg.subject.rpartition(".")[2]
        collect = self._collecting.get(token)
        if collect is not None and not collect(msg):
            return
        future = self._waiting.pop(token, None)
        if future is not None and not future.done():
            future.set_result(msg)

    async def publish(self, subject: str, payload: bytes, *, reply: str = "", headers: Mapping[str, str] | None = None) -> None:
        """Hand one message to the socket; nothing is known of its fate.

        Raises:
            Unavailable: the connection is lost.
        """
        if self.lost.is_set():
            raise self._gone()
        try:
            await self.client.publish(subject, payload, reply, None if headers is None else dict(headers))
        except (OSError, nats.errors.Error) as error:
            raise Unavailable(f"cannot publish on {subject!r} at {self.url}: {error}") from error

    async def publish_many(self, messages: Iterable[tuple[str, bytes, str]], reply: str, header: str) -> None:
        """Hand many messages to the socket as one, in order: (subject, payload, value of `header`), one `reply` for all.

        nats-py takes messages one by one; building their commands together costs a quarter of the time.

        Raises:
            Unavailable: the connection is lost, or a message is larger than the server takes; then none was sent.
        """
        if self.lost.is_set():
            raise self._gone()
        parts: list[bytes] = []
        limit = self.max_payload
        for subject, payload, value in messages:
            head = f"NATS/1.0\r\n{header}: {value}\r\n\r\n".encode()
            size = len(head) + len(payload)
            if size > limit:
                raise Unavailable(f"a message of {size} bytes on {subject!r} is more than {self.url} takes ({limit})")
            parts += (f"HPUB {subject} {reply} {len(head)} {size}\r\n".encode(), head, payload, b"\r\n")
        client: Any = self.client
        try:
            await client._send_command(b"".join(parts))  # noqa: SLF001 - see above
            await client._flush_pending()  # noqa: SLF001 - see above
        except (OSError, nats.errors.Error) as error:
            raise Unavailable(f"cannot publish at {self.url}: {error}") from error

    async def request(self, subject: str, payload: bytes, *, timeout_s: float, headers: Mapping[str, str] | None = None) -> Msg:
        """The reply to one message.

        Raises:
            Unavailable: connection lost, nobody listens, or no reply within `timeout_s`. The request may have worked.
        """
        msg = await self._ask(subject, payload, timeout_s=timeout_s, headers=headers, collect=None)
        if msg.headers and not msg.data and msg.headers.get(STATUS_HEADER) == NO_RESPONDERS:
            raise Unavailable(f"nobody listens on {subject!r} at {self.url}")
        return msg

    async def request_many(self, subject: str, payload: bytes, *, timeout_s: float) -> list[Msg]:
        """The replies to one message up to the status message that ends them, which is the last one.

        The caller bounds their number by what it asks for.

        Raises:
            Unavailable: as `request`; the deadline is for all.
        """
        replies: list[Msg] = []

        def collect(msg: Msg) -> bool:
            replies.append(msg)
            return not msg.data and msg.headers is not None and STATUS_HEADER in msg.headers

        await self._ask(subject, payload, timeout_s=timeout_s, headers=None, collect=collect)
        if len(replies) == 1 and (replies[0].headers or {}).get(STATUS_HEADER) == NO_RESPONDERS:
            raise Unavailable(f"nobody listens on {subject!r} at {self.url}")
        return replies

    async def _ask(
        self,
        subject: str,
        payload: bytes,
        *,
        timeout_s: float,
        headers: Mapping[str, str] | None,
        collect: Callable[[Msg], bool] | None,
    ) -> Msg:
        self._asked += 1
        token = str(self._asked)
        future: asyncio.Future[Msg] = asyncio.get_running_loop().create_future()
        self._waiting[token] = future
        if collect is not None:
            self._collecting[token] = collect
        try:
            await self.publish(subject, payload, reply=f"{self._inbox}.{token}", headers=headers)
            async with asyncio.timeout(timeout_s):
                return await future
        except TimeoutError as error:
            raise Unavailable(f"no reply from {self.url} on {subject!r} within {timeout_s:g} s") from error
        finally:
            self._waiting.pop(token, None)
            self._collecting.pop(token, None)

    async def api(self, verb: str, body: Any = None, *, timeout_s: float) -> dict[str, Any]:
        """The reply of the JetStream API to `verb` ("STREAM.INFO.dev-raw").

        Raises:
            ApiRefused: it answered with an error.
            Unavailable: no answer.
        """
        payload = b"" if body is None else msgspec.json.encode(body)
        msg = await self.request(API + verb, payload, timeout_s=timeout_s)
        return checked(msg.data, f"{verb} at {self.url}")

    async def subscribe(self, subject: str, callback: Callable[[Msg], Awaitable[None]]) -> Subscription:
        """Call `callback` per message on `subject`, in order, without nats-py's own silent pending limits."""
        if self.lost.is_set():
            raise self._gone()
        try:
            return await self.client.subscribe(subject, cb=callback, pending_msgs_limit=0, pending_bytes_limit=0)
        except (OSError, nats.errors.Error) as error:
            raise Unavailable(f"cannot subscribe to {subject!r} at {self.url}: {error}") from error

    async def subscribe_at_once(self, subject: str, callback: Callable[[bytes], None]) -> None:
        """Call `callback` with each body on `subject` from the read loop itself, in order; it must be quick and not raise."""

        async def queued(msg: Msg) -> None:
            callback(msg.data)

        subscription = await self.subscribe(subject, queued)
        self.client.at_once[subscription._id] = callback  # noqa: SLF001 - nats-py's own number of a subscription

    async def subscribe_in_bulk(
        self, subject: str, callback: Callable[[list[Arrived]], Awaitable[None]], status: Callable[[Msg], Awaitable[None]]
    ) -> None:
        """As `BulkClient.in_bulk`, on a connection opened with `is_bulk`; on any other `status` gets all, one by one."""
        subscription = await self.subscribe(subject, status)
        if isinstance(self.client, BulkClient):
            self.client.in_bulk[str(subscription._id)] = callback  # noqa: SLF001 - nats-py's own number of a subscription

    def new_inbox(self) -> str:
        """A subject of our own for replies."""
        return self.client.new_inbox()

    async def close(self) -> None:
        """Send what is buffered and close; within a deadline. Safe to call twice."""
        try:
            await _apart(self._close_client(), CLOSE_TIMEOUT_S)
        except (OSError, nats.errors.Error):
            await self.abandon()
        self._mark_lost()

    async def abandon(self) -> None:
        """Close at once: what has not left this process never will. Safe to call twice."""
        self.reason = self.reason or "abandoned"
        self._mark_lost()
        # nats-py offers no close that drops its buffer; sending it is what a caller who timed out must prevent.
        client: Any = self.client
        client._pending = []  # noqa: SLF001 - see above
        client._pending_data_size = 0  # noqa: SLF001 - see above
        writer = self._writer()
        if writer is None:
            return
        writer.transport.abort()
        with suppress(OSError, nats.errors.Error):
            await _apart(self._close_client(), CLOSE_TIMEOUT_S)

    async def _close_client(self) -> None:
        await self.client.close()
        await self._until_closed()

    def _writer(self) -> asyncio.StreamWriter | None:
        transport: Any = getattr(self.client, "_transport", None)
        writer: asyncio.StreamWriter | None = getattr(transport, "_io_writer", None)
        return writer

    async def _until_closed(self) -> None:
        """A client that had begun to close by itself says it is closed before its socket is."""
        writer = self._writer()
        if writer is not None:
            writer.close()
            await writer.wait_closed()


async def _apart(work: Coroutine[Any, Any, None], timeout_s: float) -> None:
    """Run nats-py's `work` in a task of its own, which ends when we are cancelled or `timeout_s` is over (TimeoutError).

    nats-py waits with `asyncio.wait_for`, which before Python 3.12 can lose a cancellation; ours must not be lost in it.
    """
    task = asyncio.create_task(work)
    try:
        await asyncio.wait({task}, timeout=timeout_s)
        if not task.done():
            raise TimeoutError
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait({task}, timeout=CLOSE_TIMEOUT_S)
    task.result()


def checked(data: bytes, what: str) -> dict[str, Any]:
    """The JSON answer in `data`.

    Raises:
        ApiRefused: when it is an error.
    """
    try:
        answer: dict[str, Any] = msgspec.json.decode(data)
    except msgspec.DecodeError as error:
        raise Unavailable(f"{what}: the answer is no JSON: {data[:80]!r}") from error
    refusal = answer.get("error")
    if refusal:
        err_code = int(refusal.get("err_code", 0))
        raise ApiRefused(
            f"{what}: {refusal.get('description', 'refused')} ({err_code})",
            code=int(refusal.get("code", 0)),
            err_code=err_code,
        )
    return answer
