"""What one client is to be told: a queue bounded in messages and bytes, and an exact account of what it lost. Pure."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Final, NamedTuple

FRAME_MESSAGES_MAX: Final = 1_000
FRAME_BYTES_MAX: Final = 256 << 10


class QueueLimits(NamedTuple):
    """Past one of them a client is too slow. A single message larger than `bytes_max` is let through an empty queue."""

    messages_max: int = 10_000
    bytes_max: int = 8 << 20


class ClientQueue:
    """Encoded messages in order, then the snapshots still owed.

    A book message of a ticker whose snapshot is still owed is not queued: the snapshot will hold it.
    """

    __slots__ = ("_bytes", "_items", "_limits", "lost", "owed")

    def __init__(self, limits: QueueLimits) -> None:
        self._limits = limits
        self._items: deque[tuple[str, str]] = deque()
        self._bytes = 0
        self.owed: OrderedDict[str, None] = OrderedDict()
        """Tickers whose snapshot has been promised."""
        self.lost: dict[str, int] | None = None
        """Ticker -> messages dropped; None while nothing was."""

    def __len__(self) -> int:
        return len(self._items)

    @property
    def size_bytes(self) -> int:
        return self._bytes

    @property
    def is_empty(self) -> bool:
        return not self._items and not self.owed

    def offer(self, text: str, ticker: str) -> bool:
        """Queue one message about `ticker` ("" = about the connection); False when it was lost, and all queued with it."""
        if self.lost is not None:
            self._lose(ticker)
            return False
        items = self._items
        if items and (len(items) >= self._limits.messages_max or self._bytes + len(text) > self._limits.bytes_max):
            self.lost = {}
            for _, queued in items:
                self._lose(queued)
            self._lose(ticker)
            items.clear()
            self._bytes = 0
            return False
        items.append((text, ticker))
        self._bytes += len(text)
        return True

    def _lose(self, ticker: str) -> None:
        if ticker and self.lost is not None:
            self.lost[ticker] = self.lost.get(ticker, 0) + 1

    def take(self, snapshot_of: Callable[[str], str | None]) -> str:
        """The next frame, a JSON array of at least one message; "" when there is nothing to send.

        Args:
            snapshot_of: the encoded snapshot of a ticker as of this moment; None when it has none any more.
        """
        if self.lost is not None:
            return ""
        pieces: list[str] = []
        size, items = 0, self._items
        while items and len(pieces) < FRAME_MESSAGES_MAX and size < FRAME_BYTES_MAX:
            text = items.popleft()[0]
            size += len(text)
            pieces.append(text)
        self._bytes -= size
        # Snapshots only behind all that is queued, so that no older message of the same book can follow one.
        while not items and self.owed and len(pieces) < FRAME_MESSAGES_MAX and size < FRAME_BYTES_MAX:
            found = snapshot_of(self.owed.popitem(last=False)[0])
            if found is not None:
                size += len(found)
                pieces.append(found)
        return f"[{','.join(pieces)}]" if pieces else ""
