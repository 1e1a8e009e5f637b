"""One environment's archive for plain (synchronous) Python: trades, books, gaps, replays, tables.

    import ssmd
    from ssmd.api.archive import price_of, size_of

    with ssmd.open("kalshi-dev") as archive:
        for trade in archive.trades("KXBTC15M-26MAY141445-45", "2026-05-14"):
            print(price_of(trade, trade.price), size_of(trade, trade.size))

Nothing needs to run: segments and manifests are read from the environment's storage. What the manifest of a day names
and the storage lacks is an error, never a silent hole; what is known to be missing is in `gaps`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from ssmd.archive.reading import ALL_DAY, NEVER_NS, Wanted, Window, raw_lines, records
from ssmd.archive.shelf_manifest import KINDS, ArchivedGap, raw_shelf, read_manifest
from ssmd.archive.storage import Storage
from ssmd.clock import SystemClock, date_of
from ssmd.errors import Rejected
from ssmd.schemas.raw_line import RawLine
from ssmd.schemas.records import BookDelta, BookSnapshot, Gap, MarketStatus, Quote, Record, Trade
from ssmd.settings import find_workspace, variables
from ssmd.transforms.book_at import BookAt, book_at

Item = TypeVar("Item")

__all__ = [
    "Archive",
    "ArchivedGap",
    "BookAt",
    "BookDelta",
    "BookSnapshot",
    "Gap",
    "MarketStatus",
    "Quote",
    "RawLine",
    "Trade",
    "open_archive",
    "price_of",
    "size_of",
]


def price_of(record: Record, mantissa: int) -> Decimal:
    """A price of `record` as a number, exactly: `price_of(trade, trade.price)`."""
    return Decimal(mantissa).scaleb(record.price_exponent)


def size_of(record: Record, mantissa: int) -> Decimal:
    """A size of `record` as a number, exactly."""
    return Decimal(mantissa).scaleb(record.size_exponent)


class Archive:
    """The archive of one environment; a context manager, or `close` it.

    Dates are those of the archive (YYYY-MM-DD, the environment's zone, UTC by default); times are UTC nanoseconds,
    starts inclusive, ends not. Iterators read as they go: a day need not fit into memory. One thread at a time.
    """

    def __init__(self, storage: Storage, env: str, feed: str, mapper: int = 0) -> None:
        self.env = env
        self.feed = feed
        self._storage = storage
        self._mapper = mapper
        self._runner = asyncio.Runner()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the storage. Safe to call twice."""
        if self._runner is not None:
            try:
                self._runner.run(self._storage.close())
            finally:
                self._runner.close()
                self._runner = None  # type: ignore[assignment]  # nothing works after this

    # Questions

    def replay(
        self,
        date: str,
        *,
        tickers: Sequence[str] = (),
        kinds: Sequence[str] = KINDS,
        start_ns: int = 0,
        end_ns: int = NEVER_NS,
        duplicates: bool = False,
    ) -> Iterator[Record]:
        """All records of a date in the order in which they were received, gaps where they were noticed among them.

        Args:
            kinds: trade, book, snapshot, quote, status, gap.
            duplicates: give a trade that was captured and backfilled both times; else once, as captured.

        Raises:
            Malformed: a segment is absent or damaged. Unavailable: the storage is away. Rejected: "unknown-kind".
        """
        wanted = self._wanted(date, tuple(kinds), tickers)._replace(window=Window(start_ns, end_ns))
        wanted = wanted._replace(keeps_duplicates=duplicates)
        return self._items(records(self._storage, wanted))

    def trades(self, ticker: str, date: str) -> Iterator[Trade]:
        """A ticker's trades of a date, in order. Raises as `replay`."""
        return (record for record in self.replay(date, tickers=[ticker], kinds=["trade"]) if isinstance(record, Trade))

    def books(self, ticker: str, date: str) -> Iterator[BookSnapshot | BookDelta]:
        """A ticker's snapshots and changes of a date, in order: what `exchanges.book.Book` folds. Raises as `replay`."""
        found = self.replay(date, tickers=[ticker], kinds=["snapshot", "book"])
        return (record for record in found if isinstance(record, BookSnapshot | BookDelta))

    def book_at(self, ticker: str, at_ns: int, *, depth: int = 0, date: str = "") -> BookAt:
        """The book as it was known at an instant (inclusive), and whether anything speaks against it.

        Args:
            date: the archive's date; "" = the UTC date of `at_ns`.

        Raises:
            Rejected: "no-book". Malformed, Unavailable: as `replay`.
        """
        wanted = self._wanted(date or date_of(at_ns), KINDS, ())
        return self._runner.run(book_at(self._storage, wanted, ticker, at_ns, depth))

    def gaps(self, date: str, ticker: str = "") -> list[ArchivedGap]:
        """The holes that touch a date, by start; those that concern `ticker`, if one is given.

        Raises:
            Rejected: "nothing-archived": nothing of the date is archived, so nothing is known.
        """
        manifest = self._runner.run(read_manifest(self._storage, raw_shelf(self.env, self.feed, date)))
        if manifest is None:
            raise Rejected("nothing-archived", f"nothing of {self.feed} is archived for {date} in {self.env}")
        return [gap for gap in manifest.gaps if not ticker or gap.concerns(ticker)]

    def raw(self, date: str, *, start_ns: int = 0, end_ns: int = NEVER_NS) -> Iterator[RawLine]:
        """What was received, sent and noticed, byte for byte, in order. Raises as `replay`."""
        return self._items(raw_lines(self._storage, raw_shelf(self.env, self.feed, date), Window(start_ns, end_ns)))

    def table(self, kind: str, date: str, *, tickers: Sequence[str] = ()) -> Any:
        """A `pyarrow.Table` of one kind's records: `.to_pandas()`, `polars.from_arrow(...)`, or a relation of duckdb.

        It is held in memory whole. Prices and sizes are exact decimals (`transforms.tables`).

        Raises:
            Misconfigured: pyarrow is not installed. Else as `replay`.
        """
        from ssmd.transforms.tables import batch_of, table_of  # noqa: PLC0415 - needs an extra

        wanted = self._wanted(date, (kind,), tickers)
        return table_of(kind, (batch_of(kind, batch) for batch in self._batches(records(self._storage, wanted)) if batch))

    # How

    def _wanted(self, date: str, kinds: tuple[str, ...], tickers: Sequence[str]) -> Wanted:
        return Wanted(self.env, self.feed, date, self._mapper, kinds, frozenset(tickers), ALL_DAY)

    def _items(self, batches: AsyncIterator[Sequence[Item]]) -> Iterator[Item]:
        for batch in self._batches(batches):
            yield from batch

    def _batches(self, batches: AsyncIterator[Sequence[Item]]) -> Iterator[Sequence[Item]]:
        async def following() -> Sequence[Item] | None:
            return await anext(batches, None)

        async def ended() -> None:
            if isinstance(batches, AsyncGenerator):
                await batches.aclose()

        try:
            while (batch := self._runner.run(following())) is not None:
                yield batch
        finally:
            if self._runner is not None:
                self._runner.run(ended())


def open_archive(env: str = "", *, workspace: str = "", mapper: int = 0) -> Archive:
    """The archive of environment `env`.

    Args:
        mapper: records as this version of the mapper made them; 0 = the current ones.
        env: "" = SSMD_ENV, else what `ssmd env use` chose, else the only one.
        workspace: the directory that holds exchanges/; "" = SSMD_WORKSPACE, else upwards from the current one.

    Raises:
        Misconfigured: no such environment, its registry has mistakes, or its archive cannot be read from here.
    """
    from ssmd.wiring.archive_access import archive_of  # noqa: PLC0415 - reads the registry
    from ssmd.wiring.environment import choose_environment, resolve_environment  # noqa: PLC0415 - as above

    given = variables()
    space = find_workspace(Path.cwd(), workspace or given.get("SSMD_WORKSPACE", ""))
    name = choose_environment(space, env, given)
    environment = resolve_environment(space, name, date_of(SystemClock().now_ns()))
    return Archive(archive_of(environment, given), name, environment.document.feed, mapper)
