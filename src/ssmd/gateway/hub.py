"""Who wants to hear what: subscriptions by ticker and kind, and the way of each message to its subscribers.

The hub lives in one event loop and never waits: a message is encoded once, offered to each subscriber's own queue, and
at most `coalesce_s` later each client with something to send is woken. A client whose queue is full is told exactly
what it lost and closed; no other client notices.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Final

from ssmd.domain.client import Mode
from ssmd.errors import Rejected
from ssmd.gateway.api_keys import ANYONE, Grant
from ssmd.gateway.client import SLOW_CLIENT, Client, CloseReason, Write, never, text_frame
from ssmd.gateway.hub_limits import DEFAULT_LIMITS, HubLimits
from ssmd.gateway.interests import Interest, Interests, Piece, is_pattern, matches, together, wants
from ssmd.gateway.kinds import BIT_OF_KIND, Wanted, bits_of
from ssmd.gateway.market_state import MarketState
from ssmd.gateway.messages import Ack, Closing, Conflated, Control, Loss, encode, of_record
from ssmd.gateway.views import snapshot
from ssmd.schemas.records import KIND_OF, WHOLE_CHANNEL, Record

_BOOK: Final = BIT_OF_KIND["book"]
_GAP: Final = BIT_OF_KIND["gap"]
WAITING_BYTES_MAX: Final = 1 << 20
"""Past it what was published is handed out at once."""
CONFLATED_S: Final = 1.0
"""Time between two frames in mode conflated, where the client does not say."""


class Hub:
    """See the module's docstring. All methods are to be called in the hub's event loop."""

    def __init__(self, state: MarketState, limits: HubLimits = DEFAULT_LIMITS) -> None:
        self._state = state
        self.limits = limits
        self.incarnation = ""
        """Which life of the stream sequences are of."""
        self._clients: set[Client] = set()
        self._empty = asyncio.Event()
        self._empty.set()
        self._interests: Interests[Client] = Interests()
        self._dirty: list[Client] = []
        self._waiting: list[Interest[Client]] = []
        """Interests with pieces that were not handed out yet."""
        self._waiting_bytes = 0
        self._flushed_s = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._numbers = 0
        self.is_open = True
        self.messages_offered = 0
        self.messages_lost = 0
        self.messages_conflated = 0
        self.clients_closed_slow = 0

    # Clients

    def connect(self, abort: Callable[[], None], grant: Grant = ANYONE, write: Write = never) -> Client:
        """Take a new client; `abort` cuts its connection without waiting, `write` is `client.Client.write`.

        Raises:
            Rejected: too many clients, or the gateway is stopping, or not up to date yet: a client would be told old news as
                new.
        """
        if not self.is_open:
            raise Rejected("gateway-stopping", "the gateway is stopping; try again later")
        if not self._state.is_current:
            raise Rejected("catching-up", "the gateway is catching up with the market stream; try again in a second")
        if len(self._clients) >= self.limits.clients_max:
            raise Rejected("too-many-clients", f"{len(self._clients)} clients are connected, the limit; try later")
        if grant.client_id:
            connections = sum(1 for client in self._clients if client.grant.client_id == grant.client_id)
            connections_max = grant.connections_max or self.limits.connections_per_key_max
            if connections >= connections_max:
                raise Rejected("too-many-connections", f"this API key has {connections} connections open, its limit")
        self._numbers += 1
        client = Client(self._numbers, self.limits.queue, abort, grant, write)
        self.set_mode(client, grant.mode, CONFLATED_S)
        self._clients.add(client)
        self._empty.clear()
        return client

    def disconnect(self, client: Client) -> None:
        """The client's connection is over. Safe to call twice."""
        self._want(client, {})
        self._clients.discard(client)
        if client.resuming is not None:
            client.resuming.cancel()
        if not self._clients:
            self._empty.set()
        if client.abort_timer is not None:
            client.abort_timer.cancel()

    def set_mode(self, client: Client, mode: Mode, interval_s: float = CONFLATED_S) -> None:
        """How `client` is served from now on; what is queued goes first."""
        self.settle()
        client.mode = mode
        client.interval_s = interval_s if mode == "conflated" else 0.0
        # What waited for the end of an interval waits no more.
        self._wake(client)

    def of_key(self, client_id: str) -> list[Client]:
        """The connections made with one API key."""
        return [client for client in self._clients if client.grant.client_id == client_id]

    def queued(self) -> tuple[int, int]:
        """(messages, bytes) waiting in all queues."""
        return sum(len(client.queue) for client in self._clients), sum(client.queue.size_bytes for client in self._clients)

    def _want(self, client: Client, masks: dict[str, int]) -> None:
        self.settle()
        self._interests.leave(client, client.masks)
        client.masks = masks
        self._interests.join(client, masks)

    @property
    def clients(self) -> int:
        return len(self._clients)

    # Subscriptions

    def subscribe(self, client: Client, command_id: int, tickers: tuple[str, ...], kinds: tuple[str, ...]) -> None:
        """Add `kinds` of `tickers` ("*" = all, also those to come) and queue the ack; snapshots follow it.

        A snapshot is owed for each named market that has a book, also when the client knew it: that is how it resyncs.

        Raises:
            Rejected: more tickers than one client may name.
        """
        if client.resuming is not None:
            raise Rejected("resuming", "what was missed is still being sent: wait for the message of type resumed")
        new = sum(1 for ticker in tickers if ticker not in client.masks)
        if len(client.masks) + new > self.limits.tickers_per_client_max:
            raise Rejected(
                "too-many-tickers",
                f"{len(client.masks)} tickers are subscribed and {new} more asked for, the limit is "
                f'{self.limits.tickers_per_client_max}; "*" subscribes to all in one',
            )
        bits = bits_of(kinds)
        self._want(client, client.masks | {ticker: client.masks.get(ticker, 0) | bits for ticker in tickers})
        owed = self._books(tickers) if bits & _BOOK else []
        self._tell(client, Ack(command_id, "subscribe", tickers, kinds, len(owed), self._state.stream_seq, self.incarnation))
        if client.queue.lost is None:
            client.queue.owed.update(dict.fromkeys(owed))
        client.wake.set()

    def unsubscribe(self, client: Client, command_id: int, tickers: tuple[str, ...], kinds: tuple[str, ...]) -> None:
        """Take `kinds` of `tickers` away and queue the ack; nothing of them comes after it, unless "*" brings it.

        "*" is a subscription of its own, apart from those that name tickers. What was not subscribed does no harm.
        """
        if client.resuming is not None:
            raise Rejected("resuming", "what was missed is still being sent: wait for the message of type resumed")
        bits = bits_of(kinds)
        left = client.masks | {ticker: client.masks.get(ticker, 0) & ~bits for ticker in tickers}
        self._want(client, {ticker: mask for ticker, mask in left.items() if mask})
        if bits & _BOOK:
            for ticker in [owed for owed in client.queue.owed if not wants(client.masks, owed, _BOOK)]:
                del client.queue.owed[ticker]
        client.queue.forget(lambda ticker, bit: not wants(client.masks, ticker, bit))
        self._tell(client, Ack(command_id, "unsubscribe", tickers, kinds, 0, self._state.stream_seq, self.incarnation))
        client.wake.set()

    def join(self, client: Client, tickers: tuple[str, ...], kinds: tuple[str, ...]) -> None:
        """Let a client that has been told everything up to now have what comes from now on."""
        self._want(client, dict.fromkeys(tickers, bits_of(kinds)))

    async def offer_again(self, client: Client, records: Iterable[Record], stream_seq: int, wanted: Wanted) -> int:
        """Queue what one message of the stream released, read again for one client; how many messages it was.

        Waits until the client has read half of what is queued for it, so a client that resumes loses nothing.
        """
        pieces = []
        for record in records:
            bit, ticker = BIT_OF_KIND[KIND_OF[type(record)]], record.ticker
            if wanted.takes(ticker, bit):
                pieces.append(Piece(encode(of_record(record, stream_seq)), ticker, bit))
        if pieces:
            queue, limits = client.queue, self.limits.queue
            while len(queue) > limits.messages_max // 2 or queue.size_bytes > limits.bytes_max // 2:
                client.room.clear()
                client.wake.set()
                await client.room.wait()
            self._offer(client, *together(pieces))
        client.told_to = stream_seq
        return len(pieces)

    def _books(self, tickers: Iterable[str]) -> list[str]:
        wanted: list[str] = []
        for asked in dict.fromkeys(tickers):
            if not is_pattern(asked):
                wanted.append(asked)
            else:
                wanted += [ticker for ticker in self._state.tickers if matches(asked, ticker)]
        return [
            ticker for ticker in dict.fromkeys(wanted) if (market := self._state.find(ticker)) is not None and market.has_book
        ]

    def beat(self, message: Control) -> None:
        """Tell all who subscribed to something and for whom nothing is waiting: others may be about to resume."""
        self.settle()
        frame = text_frame(f"[{encode(message)}]")
        for client in self._clients:
            if client.masks and client.is_clear and client.resuming is None:
                client.write(frame)

    def tell(self, client: Client, message: Control) -> None:
        """Queue a message about the connection itself."""
        self.settle()
        self._tell(client, message)
        client.wake.set()

    def _tell(self, client: Client, message: Control) -> None:
        was_lossless = client.queue.lost is None
        if not client.queue.offer(encode(message), ("",)) and was_lossless:
            self._close_slow(client)

    # Messages

    def publish(self, records: Iterable[Record], stream_seq: int) -> None:
        """Offer what one message of the stream released, already applied to the state, to all who want it, in order.

        It reaches the clients' queues, or the clients, at most `coalesce_s` later, and before anything else is told them.
        """
        size = 0
        for record in records:
            bit, ticker = BIT_OF_KIND[KIND_OF[type(record)]], record.ticker
            # A hole of a whole channel concerns whoever asked for gaps of any ticker.
            wanting = self._interests.in_kind(bit) if ticker == WHOLE_CHANNEL else self._interests.wanting(ticker, bit)
            piece = None
            for interest in wanting:
                piece = piece or Piece(encode(of_record(record, stream_seq)), ticker, bit)
                if not interest.pieces:
                    self._waiting.append(interest)
                interest.pieces.append(piece)
            size += len(piece.text) if piece is not None else 0
        self._waiting_bytes += size
        if self._waiting_bytes > WAITING_BYTES_MAX:
            self._flush()
        elif self._waiting:
            self._schedule()

    def _schedule(self) -> None:
        """Flush at the end of this turn of the loop, but not sooner than `coalesce_s` after the last time."""
        if self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_at(max(loop.time(), self._flushed_s + self.limits.coalesce_s), self._flush)

    def settle(self) -> None:
        """Hand out what `publish` has gathered: before anything that depends on the order of things."""
        waiting, self._waiting = self._waiting, []
        self._waiting_bytes = 0
        for interest in waiting:
            pieces, interest.pieces = interest.pieces, []
            text, tickers = together(pieces)
            frame = b""
            for client in interest.clients:
                if client.mode != "realtime":
                    self._offer_newest(client, pieces)
                elif client.queue.owed:
                    self._offer_but_owed(client, pieces)
                elif client.is_clear:
                    # Made once, for all who keep up.
                    frame = frame or text_frame(f"[{text}]")
                    if client.write(frame):
                        self.messages_offered += len(tickers)
                    else:
                        self._offer(client, text, tickers)
                else:
                    self._offer(client, text, tickers)

    def _offer_but_owed(self, client: Client, pieces: list[Piece]) -> None:
        owed = client.queue.owed
        left = [piece for piece in pieces if piece.bit != _BOOK or piece.ticker not in owed]
        if left:
            self._offer(client, *together(left))

    def _offer_newest(self, client: Client, pieces: list[Piece]) -> None:
        """Modes conflated and latest: of each ticker and kind the newest; books as a whole; gaps all."""
        queue = client.queue
        for piece in pieces:
            self.messages_offered += 1
            if piece.bit == _BOOK:
                if queue.lost is None:
                    queue.owe_book(piece.ticker)
                continue
            was_lossless = queue.lost is None
            is_gap = piece.bit == _GAP
            kept = queue.offer(piece.text, (piece.ticker,)) if is_gap else queue.conflate(piece.text, piece.ticker, piece.bit)
            if not kept and was_lossless:
                self._close_slow(client)
                return
        self._mark_dirty(client)

    def _mark_dirty(self, client: Client) -> None:
        if client.is_dirty:
            return
        client.is_dirty = True
        if client.interval_s:
            asyncio.get_running_loop().call_later(client.interval_s, self._wake, client)
            return
        self._dirty.append(client)
        self._schedule()

    @staticmethod
    def _wake(client: Client) -> None:
        client.is_dirty = False
        client.wake.set()

    def _offer(self, client: Client, text: str, tickers: tuple[str, ...]) -> None:
        self.messages_offered += len(tickers)
        was_lossless = client.queue.lost is None
        if not client.queue.offer(text, tickers):
            if was_lossless:
                self._close_slow(client)
            else:
                self.messages_lost += len(tickers)
            return
        self._mark_dirty(client)

    def _flush(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None
        self._flushed_s = asyncio.get_running_loop().time()
        self.settle()
        dirty, self._dirty = self._dirty, []
        for client in dirty:
            self._wake(client)

    def take(self, client: Client) -> str:
        """The client's next frame, "" = nothing to send now."""
        queue = client.queue
        if queue.owed:
            # The snapshots will hold all that was published: none of it may follow them.
            self.settle()
        frame = queue.take(self._snapshot_text)
        client.room.set()
        if frame and queue.replaced:
            replaced, queue.replaced = queue.replaced, {}
            count = sum(replaced.values())
            self.messages_conflated += count
            frame = f"{frame[:-1]},{encode(Conflated(count, replaced, self._state.stream_seq))}]"
        return frame

    def _snapshot_text(self, ticker: str) -> str | None:
        market = self._state.find(ticker)
        return None if market is None or not market.has_book else encode(snapshot(self._state, market))

    # Closing

    def close(self, client: Client, why: CloseReason, last_words: Control | None = None) -> None:
        """Have the client's writer send what is queued, then `last_words`, then close; cut off past the grace."""
        if client.closing is not None:
            return
        self.settle()
        if client.closing is not None:
            return
        client.closing = why
        client.last_words = "" if last_words is None else f"[{encode(last_words)}]"
        client.abort_timer = asyncio.get_running_loop().call_later(self.limits.close_grace_s, client.abort)
        client.wake.set()

    def _close_slow(self, client: Client) -> None:
        self.clients_closed_slow += 1
        self.messages_lost += sum((client.queue.lost or {}).values())
        self.close(client, SLOW_CLIENT)

    def last_frame(self, client: Client) -> str:
        """What a client that is being closed is told last, "" = nothing; after it the client gets nothing more."""
        lost = client.queue.lost
        if lost is None:
            return client.last_words
        # What was published but not handed out yet is lost too: first that, then the sum.
        self._want(client, {})
        message = Loss(sum(lost.values()), dict(lost), len(client.queue.owed), self._state.stream_seq)
        return f"[{encode(message)}]"

    def close_all(self, why: CloseReason, *, resume_from: int) -> None:
        """Close every client; each is told where to go on (0 = from the start)."""
        for client in list(self._clients):
            told_to = resume_from
            if client.resuming is not None:
                client.resuming.cancel()
                told_to = min(resume_from, client.told_to)
            self.close(client, why, Closing(why.reason, told_to))

    def abort_all(self) -> None:
        """Cut every connection without waiting."""
        for client in list(self._clients):
            client.abort()

    async def emptied(self) -> None:
        """Wait until no client is connected."""
        await self._empty.wait()
