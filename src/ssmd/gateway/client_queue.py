"""What one client is to be told: a queue bounded in messages and bytes, and an exact account of what it lost. Pure."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Final, NamedTuple

FRAME_MESSAGES_MAX: Final = 1_000
FRAME_BYTES_MAX: Final = 256 << 10


class QueueLimits(NamedTuple):
    """Past one of them a client is too slow. What one block brings is let through an empty queue, however much it is."""

    messages_max: int = 10_000
    bytes_max: int = 8 << 20


class ClientQueue:
    """Encoded messages in order, then the newest of each conflated kind, then the snapshots still owed.

    A book message of a ticker whose snapshot is still owed is not queued: the snapshot will hold it.
    """

    __slots__ = ("_bytes", "_items", "_limits", "_messages", "_newest", "lost", "owed", "replaced")

    def __init__(self, limits: QueueLimits) -> None:
        self._limits = limits
        self._items: deque[tuple[str, tuple[str, ...]]] = deque()
        self._messages = 0
        self._bytes = 0
        self.owed: OrderedDict[str, None] = OrderedDict()
        """Tickers whose snapshot has been promised."""
        self.lost: dict[str, int] | None = None
        """Ticker -> messages dropped; None while nothing was."""
        self._newest: dict[tuple[str, int], str] = {}
        self.replaced: dict[str, int] = {}
        """Ticker -> messages that a newer one took the place of since the last frame."""

    def __len__(self) -> int:
        return self._messages

    @property
    def size_bytes(self) -> int:
        return self._bytes

    @property
    def is_empty(self) -> bool:
        return not self._items and not self._newest and not self.owed

    def offer(self, text: str, tickers: tuple[str, ...]) -> bool:
        """Queue encoded messages, commas between; False when they were lost, and all queued with them.

        Args:
            tickers: the ticker of each message, "" = about the connection.
        """
        if self.lost is not None:
            self._lose(tickers)
            return False
        limits = self._limits
        count, size = self._messages + len(tickers), self._bytes + len(text)
        if self._items and (count > limits.messages_max or size > limits.bytes_max):
            self.lost = {}
            for _, queued in self._items:
                self._lose(queued)
            self._lose(tickers)
            self._items.clear()
            self._messages = self._bytes = 0
            return False
        self._items.append((text, tickers))
        self._messages, self._bytes = count, size
        return True

    def conflate(self, text: str, ticker: str, bit: int) -> bool:
        """Queue a message in place of the one of its ticker and kind that was not sent yet; False when it was lost."""
        if self.lost is not None:
            self._lose((ticker,))
            return False
        before = self._newest.pop((ticker, bit), None)
        if before is not None:
            self.replaced[ticker] = self.replaced.get(ticker, 0) + 1
            self._bytes -= len(before)
            self._messages -= 1
        limits = self._limits
        if self._newest and (self._messages >= limits.messages_max or self._bytes + len(text) > limits.bytes_max):
            self.lost = {}
            for _, queued in self._items:
                self._lose(queued)
            self._lose((*(held for held, _ in self._newest), *((ticker,) if before is None else (ticker, ticker))))
            self._items.clear()
            self._newest.clear()
            self._messages = self._bytes = 0
            return False
        self._newest[ticker, bit] = text
        self._bytes += len(text)
        self._messages += 1
        return True

    def forget(self, is_unwanted: Callable[[str, int], bool]) -> None:
        """Drop what waits in conflated modes of a ticker and kind that is not wanted any more."""
        for key in [key for key in self._newest if is_unwanted(*key)]:
            self._bytes -= len(self._newest.pop(key))
            self._messages -= 1

    def owe_book(self, ticker: str) -> None:
        """Send the book of `ticker` instead of the change at hand; one for all changes until then."""
        if ticker in self.owed:
            self.replaced[ticker] = self.replaced.get(ticker, 0) + 1
        self.owed[ticker] = None

    def _lose(self, tickers: tuple[str, ...]) -> None:
        if self.lost is not None:
            for ticker in tickers:
                if ticker:
                    self.lost[ticker] = self.lost.get(ticker, 0) + 1

    def take(self, snapshot_of: Callable[[str], str | None]) -> str:
        """The next frame, a JSON array of at least one message; "" when there is nothing to send.

        Args:
            snapshot_of: the encoded snapshot of a ticker as of this moment; None when it has none any more.
        """
        if self.lost is not None:
            return ""
        pieces: list[str] = []
        count, size, items = 0, 0, self._items
        while items and count < FRAME_MESSAGES_MAX and size < FRAME_BYTES_MAX:
            text, tickers = items.popleft()
            count += len(tickers)
            size += len(text)
            pieces.append(text)
        while not items and self._newest and count < FRAME_MESSAGES_MAX and size < FRAME_BYTES_MAX:
            key = next(iter(self._newest))
            text = self._newest.pop(key)
            count += 1
            size += len(text)
            pieces.append(text)
        self._messages -= count
        self._bytes -= size
        # Snapshots only behind all that is queued, so that no older message of the same book can follow one.
        while not items and not self._newest and self.owed and size < FRAME_BYTES_MAX:
            found = snapshot_of(self.owed.popitem(last=False)[0])
            if found is not None:
                size += len(found)
                pieces.append(found)
        return f"[{','.join(pieces)}]" if pieces else ""
