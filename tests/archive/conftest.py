"""An archive made from sessions of a venue's frames: raw and normalized segments, seals, manifests that agree."""

from __future__ import annotations

import json
import random as seeded
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from ssmd.application.handler import Application
from ssmd.archive.keys import SegmentName, Shelf
from ssmd.archive.segment import SegmentWriter
from ssmd.archive.shelf_manifest import raw_shelf, record_shelf
from ssmd.archive.storage import Storage
from ssmd.archive.storage_memory import MemoryStorage
from ssmd.clock import ManualClock, date_of
from ssmd.domain import archive, capture
from ssmd.domain.archive import CompletePartition, OpenPartition, SealSegment, SegmentFile, SessionReached
from ssmd.domain.catalogue import CATALOGUE
from ssmd.exchanges.kalshi.normalize import KalshiMapper
from ssmd.projections.manifest_sink import ManifestSink
from ssmd.projections.manifests import MANIFESTS
from ssmd.projections.rebuild import fold_in_memory
from ssmd.schemas.blocks import Entry, EntryKind
from ssmd.schemas.codecs import encode_record
from ssmd.schemas.control import Connected, Disconnected, PreviousSession, encode_fact
from ssmd.schemas.raw_line import LineEncoder, RawLine
from ssmd.schemas.records import KIND_OF, Record
from ssmd.streams.journal import Journal
from ssmd.streams.journal_memory import MemoryJournal

ENV, FEED = "test", "kalshi"
NOON = 1_778_760_000_000_000_000
SECOND = 1_000_000_000
DATE = date_of(NOON)
INCARNATION = "ab12"


class ArchiveWorld:
    """Storage and journal; `lines` and `records` are what is archived, in the order written.

    Sessions are written with `session`, each cut into segments of `cut` entries in blocks of `block`.
    """

    def __init__(self, storage: Storage, spool: Path, seed: int = 7, *, env: str = ENV, journal: Journal | None = None) -> None:
        self.storage = storage
        self.env = env
        self.journal = journal or MemoryJournal(env)
        self.clock = ManualClock(NOON)
        self.application = Application(self.journal, CATALOGUE, self.clock, seeded.Random(seed).randbytes)
        self.random = seeded.Random(seed)
        self.lines: list[RawLine] = []
        self.records: list[Record] = []
        self.ts = NOON
        self._spool = spool
        self._seq: dict[str, int] = {"raw": 0, "normalized": 0}
        self._opened: set[tuple[str, str, str]] = set()
        self._previous: dict[str, PreviousSession] = {}
        spool.mkdir(parents=True, exist_ok=True)

    def entries(self, connection: str, count: int, tickers: Sequence[str]) -> list[Entry]:
        """A session: subscribes to books and trades of `tickers`, then `count` frames of them, then is closed."""
        session, n, made = self.ts, 0, []

        def add(kind: EntryKind, payload: bytes) -> None:
            nonlocal n
            n += 1
            self.ts += self.random.randrange(1, 2_000_000)
            made.append(Entry(kind, n, self.ts, payload))

        def frame(kind: str, sid: int, seq: int, **msg: Any) -> None:
            add(EntryKind.IN, json.dumps({"type": kind, "sid": sid, "seq": seq, "msg": msg}).encode() + b"\n")

        previous = self._previous.get(connection)
        add(EntryKind.CTL, encode_fact(Connected(FEED, connection, "wss://x", "kalshi-dollars", "i", 1, "1", "", previous)))
        for number, channel in enumerate(("orderbook_delta", "trade"), 1):
            params = {"channels": [channel], "market_tickers": list(tickers)}
            if number == 1:
                params["use_yes_price"] = False  # type: ignore[assignment]
            add(EntryKind.OUT, json.dumps({"id": number, "cmd": "subscribe", "params": params}).encode())
            ack = {"type": "subscribed", "id": number, "msg": {"channel": channel, "sid": number}}
            add(EntryKind.IN, json.dumps(ack).encode() + b"\n")
        book_seq = trade_seq = 0
        for ticker in tickers:
            book_seq += 1
            levels = [[f"0.{price:02}00", f"{self.random.randrange(1, 500)}.00"] for price in (10, 20, 30)]
            frame("orderbook_snapshot", 1, book_seq, market_ticker=ticker, market_id="m", yes_dollars_fp=levels)
        for _ in range(count):
            ticker = self.random.choice(list(tickers))
            if self.random.random() < 0.1:
                trade_seq += 1
                numbers = {"yes_price_dollars": "0.3000", "no_price_dollars": "0.7000", "count_fp": "2.50"}
                frame("trade", 2, trade_seq, trade_id=f"t{n}", market_ticker=ticker, taker_book_side="bid", **numbers)
            else:
                book_seq += 1
                price, size = f"0.{self.random.randrange(1, 99):02}00", f"{self.random.randrange(1, 300)}.00"
                more = {"price_dollars": price, "delta_fp": size, "side": self.random.choice(["yes", "no"])}
                frame("orderbook_delta", 1, book_seq, market_ticker=ticker, market_id="m", **more)
        add(EntryKind.CTL, encode_fact(Disconnected("closed-by-venue", 1000, "", self.ts)))
        self._previous[connection] = PreviousSession(session, n, self.ts, "closed-by-venue")
        return made

    async def session(
        self,
        count: int = 200,
        *,
        connection: str = "main",
        tickers: Sequence[str] = ("A-1", "B.2"),
        cut: int = 70,
        block: int = 9,
    ) -> None:
        """Archive one session whole."""
        session = self.ts
        await self.write(connection, session, self.entries(connection, count, tickers), cut=cut, block=block)

    async def write(self, connection: str, session: int, entries: Sequence[Entry], *, cut: int = 70, block: int = 9) -> None:
        """Archive a session's entries, by date and in segments."""
        mapper = KalshiMapper(FEED, session)
        by_date: dict[str, list[Entry]] = {}
        for entry in entries:
            by_date.setdefault(date_of(entry.ts_recv_ns), []).append(entry)
        for date, of_date in by_date.items():
            for start in range(0, len(of_date), cut):
                await self._segment(connection, session, date, of_date[start : start + cut], block, mapper)

    async def _segment(
        self, connection: str, session: int, date: str, entries: Sequence[Entry], block: int, mapper: KalshiMapper
    ) -> None:
        encoder = LineEncoder(connection)
        raw: list[tuple[bytes, int, int, int]] = []
        kinds: dict[str, list[tuple[bytes, int, int, int]]] = {}
        for start in range(0, len(entries), block):
            part = entries[start : start + block]
            raw.append((encoder.encode(session, part), len(part), part[0].ts_recv_ns, part[-1].ts_recv_ns))
            self.lines += [RawLine(connection, session, entry) for entry in part]
            groups: dict[tuple[str, str], list[Record]] = {}
            for entry in part:
                for record in mapper.map(entry).records:
                    groups.setdefault((KIND_OF[type(record)], record.ticker), []).append(record)
                    self.records.append(record)
            for (kind, _), records in groups.items():
                piece = b"".join(map(encode_record, records))
                kinds.setdefault(kind, []).append((piece, len(records), records[0].ts_recv_ns, records[-1].ts_recv_ns))
        reached = (SessionReached(session, entries[-1].n, newline=True),)
        await self._seal("raw", connection, date, {"raw": raw}, reached)
        await self._seal("normalized", connection, date, kinds, reached)

    async def _seal(
        self, type_: str, connection: str, date: str, files: dict[str, list[tuple[bytes, int, int, int]]], reached: Any
    ) -> None:
        first, self._seq[type_] = self._seq[type_] + 1, self._seq[type_] + 10
        sealed = []
        for kind, pieces in sorted(files.items()):
            shelf: Shelf = (
                raw_shelf(self.env, FEED, date)
                if type_ == "raw"
                else record_shelf(self.env, FEED, date, kind, KalshiMapper.version)
            )
            name = SegmentName(shelf, connection, INCARNATION, first, self._seq[type_])
            writer = SegmentWriter(self._spool / f"{type_}-{kind}", 3)
            for piece in pieces:
                writer.add(*piece)
            facts = writer.finish()
            await self.storage.put_file(name.key, writer.path)
            sealed.append(
                SegmentFile(
                    name.key, kind, facts.size_bytes, facts.sha256, facts.content_bytes, facts.content_sha256,
                    facts.records, facts.ts_recv_first_ns, facts.ts_recv_last_ns,
                )
            )  # fmt: skip
        if (type_, date, connection) not in self._opened:
            self._opened.add((type_, date, connection))
            await self.handle(type_, date, connection, OpenPartition(1, "t"))
        seal = SealSegment(1, INCARNATION, first, self._seq[type_], f"m-{first}", tuple(sealed), reached)
        await self.handle(type_, date, connection, seal)

    async def handle(self, type_: str, date: str, connection: str, command: Any) -> None:
        await self.application.handle(archive.DECIDER, (FEED, date, type_, connection), command, actor="test:archiver")

    async def fact(self, connection: str, event: capture.CaptureEvent) -> None:
        place = capture.place_of(event)
        await self.application.handle(
            capture.DECIDER, (FEED, connection), capture.RecordFact(place, event), actor="test:connector"
        )

    async def complete(self) -> None:
        """Complete all partitions, and write the manifests."""
        for type_, date, connection in sorted(self._opened):
            await self.handle(type_, date, connection, CompletePartition("day-mark"))
        await self.manifests()

    async def manifests(self) -> None:
        await ManifestSink(await fold_in_memory(self.journal, [MANIFESTS]), self.storage).reconcile()


MakeWorld = Callable[..., ArchiveWorld]


@pytest.fixture
def make_world(tmp_path: Path) -> MakeWorld:
    """A fresh world on the given storage (default: memory)."""

    def make(storage: Storage | None = None, seed: int = 7, **given: Any) -> ArchiveWorld:
        return ArchiveWorld(storage or MemoryStorage(), tmp_path / "spool", seed, **given)

    return make
