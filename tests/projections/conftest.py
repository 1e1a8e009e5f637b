"""A journal told as a story: events put down one by one, with the envelope filled in."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable

import msgspec
import pytest

from ssmd.domain import archive, capture
from ssmd.domain.archive import SegmentFile
from ssmd.domain.decider import tag_of
from ssmd.domain.envelope import AggregateId, Envelope, encode_envelope
from ssmd.identifiers import system_random
from ssmd.projections.store import RowStore
from ssmd.projections.store_memory import MemoryRowStore
from ssmd.projections.store_redis import RedisRowStore
from ssmd.streams.journal_memory import MemoryJournal
from ssmd.streams.subjects import journal as journal_subject

SECOND = 1_000_000_000
NOON = 1_778_760_000 * SECOND
"""2026-05-14T12:00:00Z."""
DATE = "2026-05-14"


class Story:
    def __init__(self) -> None:
        self.journal = MemoryJournal("t")
        self.now_ns = NOON
        self.config = "c0ffee"
        self._versions: Counter[AggregateId] = Counter()

    def tell(self, aggregate: AggregateId, event: msgspec.Struct, *, actor: str = "cli:anna", ts_ns: int = 0) -> int:
        self._versions[aggregate] += 1
        version = self._versions[aggregate]
        data = msgspec.to_builtins(event)
        data.pop("type")
        envelope = Envelope(
            id=f"{aggregate}-{version}",
            type=tag_of(event),
            aggregate=aggregate.aggregate,
            aggregate_id=aggregate.key,
            version=version,
            ts_ns=ts_ns or self.now_ns,
            actor=actor,
            correlation_id="request-1",
            causation_id="command-1",
            config=self.config,
            data=msgspec.Raw(msgspec.json.encode(data)),
        )
        return self.journal.put(journal_subject("t", *aggregate), encode_envelope(envelope))

    def day(self, event: msgspec.Struct, *, date: str = DATE, ts_ns: int = 0, actor: str = "cli:anna") -> int:
        return self.tell(AggregateId("trading-day", (date,)), event, actor=actor, ts_ns=ts_ns)

    def capture(self, event: capture.CaptureEvent, *, connection: str = "main") -> int:
        aggregate = AggregateId("capture", ("kalshi", connection))
        return self.tell(aggregate, event, actor=f"connector:{connection}", ts_ns=max(self.now_ns, event.ts_recv_ns))

    def archive(
        self, event: msgspec.Struct, *, date: str = DATE, type_: str = "raw", partition: str = "main", ts_ns: int = 0
    ) -> int:
        aggregate = AggregateId("archive", ("kalshi", date, type_, partition))
        return self.tell(aggregate, event, actor=f"archiver:{type_}", ts_ns=ts_ns)

    def connect(self, session: int, at_ns: int, *, version: str = "0.1.0", connection: str = "main") -> int:
        event = capture.Connected(session, 1, 0, at_ns, "wss://venue/ws", "kalshi-dollars", "host-1", 1, version, 0)
        return self.capture(event, connection=connection)

    def open_gap(self, gap_id: str, start_ns: int, tickers: tuple[str, ...] = (), *, at_ns: int = 0) -> int:
        event = capture.GapOpened(
            7, 10, 0, at_ns or start_ns, gap_id, "sequence-jump", start_ns, "orderbook_delta", 3, 5, 9, tickers, "seq 9 after 4"
        )
        return self.capture(event)

    def close_gap(self, gap_id: str, start_ns: int, end_ns: int, tickers: tuple[str, ...] = ()) -> int:
        return self.capture(capture.GapClosed(7, 11, 0, end_ns, gap_id, start_ns, end_ns, tickers))

    def seal(
        self, first: int, last: int, *files: SegmentFile, date: str = DATE, type_: str = "raw", partition: str = "main"
    ) -> int:
        sessions = (archive.SessionReached(7, last),)
        event = archive.SegmentSealed("a1", first, last, f"main.7.{last:x}.raw", files, sessions)
        return self.archive(event, date=date, type_=type_, partition=partition)


def segment(
    kind: str = "raw", *, date: str = DATE, number: int = 1, records: int = 10, first_ns: int = NOON, partition: str = "main"
) -> SegmentFile:
    day = date.replace("-", "/")
    suffix = "jsonl.zst" if kind == "raw" else "capnp.zst"
    where = f"raw/t/kalshi/{day}" if kind == "raw" else f"normalized/t/kalshi/market%3A1/{kind}/m3/{day}"
    return SegmentFile(
        key=f"{where}/{partition}-a1-{number:020}-{number:020}.{suffix}",
        kind=kind,
        size_bytes=100 * records,
        sha256=f"{number:064x}",
        content_bytes=400 * records,
        content_sha256=f"{number + 1:064x}",
        records=records,
        ts_recv_first_ns=first_ns,
        ts_recv_last_ns=first_ns + SECOND,
    )


@pytest.fixture(name="segment")
def _segment() -> Callable[..., SegmentFile]:
    return segment


@pytest.fixture
def story() -> Story:
    return Story()


@pytest.fixture(params=["memory", "redis"])
def store_url(request: pytest.FixtureRequest) -> str:
    """ "" = memory."""
    return "" if request.param == "memory" else str(request.getfixturevalue("cache_url"))


@pytest.fixture
async def store(store_url: str, fresh_env: str) -> AsyncIterator[RowStore]:
    opened: RowStore = RedisRowStore(store_url, fresh_env, random=system_random) if store_url else MemoryRowStore()
    yield opened
    await opened.clear()
    await opened.close()
