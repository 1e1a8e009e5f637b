"""Laws of every projection, over random histories of one feed: events in any order, also ones no connector would tell."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from ssmd.domain import (
    archive,
    capture,
    client,
    dead_letter,
    feedback,
    listing,
    secmaster_sync,
    trading_day,
)
from ssmd.domain import key as key_aggregate
from ssmd.domain.catalogue import CATALOGUE
from ssmd.domain.decider import tag_of
from ssmd.domain.envelope import AggregateId, Envelope, encode_envelope
from ssmd.identifiers import encode_token
from ssmd.projections import manifests
from ssmd.projections.folder import Folder, decode_events
from ssmd.projections.gaps import GapRow, is_gap_key
from ssmd.projections.manifest import render
from ssmd.projections.manifests import Document
from ssmd.projections.projection import digest_text, row_digest, shift_digest
from ssmd.projections.reading import AsOf
from ssmd.projections.rebuild import fold_in_memory, rebuild, verify
from ssmd.projections.store import Page
from ssmd.projections.store_memory import MemoryRowStore
from ssmd.projections.views import PROJECTIONS
from ssmd.projections.working_set import decode_row
from ssmd.streams.journal import PoisonEvent, RecordedEvent
from ssmd.streams.journal_memory import MemoryJournal
from ssmd.streams.subjects import journal as journal_subject

DAY_NS = 86_400 * 10**9
START_NS = 20_587 * DAY_NS  # 2026-05-14
DATES = ("2026-05-14", "2026-05-15", "2026-05-16")

times = st.integers(START_NS, START_NS + 3 * DAY_NS - 1)
names = st.sampled_from(["main", "b.2"])
tickers = st.lists(st.sampled_from(["KX-A", "KX-B", "KX.C/D"]), unique=True, max_size=3).map(tuple)
ticker_sets = st.sampled_from(["a1", "b2", "c3"])
gap_ids = st.sampled_from(["g1", "g2", "é/3"])
sessions = st.integers(1, 3)
small = st.integers(0, 9)
dates = st.sampled_from(DATES)


def at(event: type[capture.CaptureEvent], **fields: st.SearchStrategy[object]) -> st.SearchStrategy[capture.CaptureEvent]:
    return st.builds(event, session=sessions, n=small, index=small, ts_recv_ns=times, **fields)


text = st.sampled_from(["", "stale", "because"])
capture_events = st.one_of(
    at(
        capture.Connected,
        url=st.just("wss://venue"),
        wire=text,
        instance=text,
        epoch=small,
        version=st.sampled_from(["0.1", "0.2"]),
        previous_session=small,
    ),
    at(capture.Subscribed, sid=small, channel=text, tickers=tickers),
    at(capture.Disconnected, cause=text, code=small, reason=text, last_recv_ns=times, evidence=text),
    at(
        capture.GapOpened,
        gap_id=gap_ids,
        cause=text,
        start_ns=times,
        channel=text,
        sid=small,
        seq_expected=small,
        seq_found=small,
        tickers=tickers,
        evidence=text,
    ),
    at(capture.GapClosed, gap_id=gap_ids, start_ns=times, end_ns=times, tickers=tickers),
    at(capture.DayMarked, date=dates),
    at(capture.DriftDetected, what=text, frame_type=text, field=text, detail=text),
    at(capture.Started, instance=text, epoch=small, version=text),
    at(capture.Stopped, instance=text, epoch=small, cause=text, detail=text),
    at(
        capture.GapRepaired,
        gap_id=gap_ids,
        source=text,
        start_ns=times,
        end_ns=times,
        records=small,
        tickers=tickers,
        evidence=text,
    ),
    at(
        capture.IntervalAssessed,
        sid=small,
        channel=text,
        verdict=st.sampled_from(["verified", "unverifiable", "missing", "repaired"]),
        cause=text,
        gap_id=gap_ids,
        start_ns=times,
        end_ns=times,
        first_n=small,
        first_seq=small,
        last_seq=small,
        ticker_set=ticker_sets,
        base=st.just("") | ticker_sets,
        tickers=tickers,
        dropped=tickers,
        evidence=text,
    ),
)


@st.composite
def seals(draw: st.DrawFn) -> tuple[AggregateId, archive.SegmentSealed]:
    date, name, number = draw(dates), draw(names), draw(st.integers(1, 99))
    kinds = draw(st.sampled_from([("raw",), ("trade", "book"), ("gap",)]))
    files = []
    for kind in kinds:
        day = date.replace("-", "/")
        where = f"raw/t/kalshi/{day}" if kind == "raw" else f"normalized/t/kalshi/market%3A1/{kind}/m1/{day}"
        first = draw(times)
        suffix = "jsonl.zst" if kind == "raw" else "capnp.zst"
        token = encode_token(name)
        key = f"{where}/{token}-a1-{number:020}-{number:020}.{suffix}"
        files.append(archive.SegmentFile(key, kind, number, "ab", number, "cd", number, first, first + 5))
    sealed = archive.SegmentSealed("a1", number, number, "id", tuple(files), (archive.SessionReached(draw(sessions), number),))
    type_ = "raw" if kinds == ("raw",) else "normalized"
    return AggregateId("archive", ("kalshi", date, type_, name)), sealed


def of(aggregate: str, *parts: st.SearchStrategy[str]) -> st.SearchStrategy[AggregateId]:
    return st.tuples(*parts).map(lambda drawn: AggregateId(aggregate, drawn))


told = st.one_of(
    st.tuples(of("capture", st.just("kalshi"), names), capture_events),
    seals(),
    st.tuples(
        of("archive", st.just("kalshi"), dates, st.sampled_from(["raw", "normalized"]), names),
        st.one_of(
            st.builds(archive.Opened, epoch=small, instance=text),
            st.builds(archive.Completed, reason=text, segments=small, records=small, size_bytes=small),
            st.builds(archive.Reopened, reason=text),
        ),
    ),
    st.tuples(
        of("trading-day", dates),
        st.one_of(
            st.builds(trading_day.StartRequested, date=dates, reason=text),
            st.builds(trading_day.StepCompleted, phase=st.sampled_from(["start", "end"]), step=text, detail=text),
            st.just(trading_day.Activated()),
            st.builds(trading_day.EndRequested, reason=text),
            st.builds(trading_day.Errored, status=st.just("starting"), error=text),
        ),
    ),
)


markets = st.builds(
    listing.Market,
    ticker=st.sampled_from(["KX-A", "KX.B/C"]),
    series=text,
    category=text,
    title=text,
    expiry_ns=st.one_of(st.just(0), times),
    attributes=st.dictionaries(text, text, max_size=2),
)
market_names = st.sampled_from(["KX-A", "KX.B/C"])
changes = st.builds(
    listing.Change,
    field=st.sampled_from(["series", "category", "expiry_ns", "attributes.stale", "nonsense"]),
    old=st.none(),
    new=st.sampled_from([None, "", "stale", "1778760000000000000"]),
)
fingerprints = st.sampled_from(["0123abcd", "89abcdef"])
words = st.lists(text, max_size=2).map(tuple)
others = st.one_of(
    st.tuples(
        of("listing", st.just("kalshi"), st.sampled_from(["KX", "KX.2"])),
        st.one_of(
            st.builds(listing.MarketListed, market=markets),
            st.builds(listing.MarketChanged, ticker=market_names, changes=st.lists(changes, max_size=3).map(tuple)),
            st.builds(listing.MarketClosed, ticker=market_names, at_ns=times),
            st.builds(listing.MarketDetermined, ticker=market_names, at_ns=times, result=text),
            st.builds(listing.MarketSettled, ticker=market_names, at_ns=times, result=text, value=text),
            st.builds(
                listing.MarketAmended, ticker=market_names, at_ns=times, stage=st.just("closed"), result=text, value=text
            ),
            st.builds(listing.MarketDelisted, ticker=market_names, reason=text),
            st.builds(listing.MarketRelisted, market=markets),
        ),
    ),
    st.tuples(
        of("secmaster-sync", st.just("kalshi")),
        st.one_of(
            st.builds(secmaster_sync.Started, sync_id=text, scope=text),
            st.builds(secmaster_sync.Completed, sync_id=text, counts=st.builds(secmaster_sync.Counts, markets=small)),
            st.builds(secmaster_sync.Failed, sync_id=text, error=text),
        ),
    ),
    st.tuples(
        of("archive", st.just("kalshi"), dates, st.sampled_from(["raw", "normalized"]), names),
        st.one_of(
            st.builds(archive.Verified, check=text, objects=small, size_bytes=small),
            st.builds(archive.Damaged, key=names, problem=text, expected_sha256=text, found_sha256=text),
            st.builds(archive.Repaired, key=names, source=text, sha256=text),
            # Keys of segments, as the aggregate's decider gives them: no view knows what to do with any other.
            st.builds(archive.Pruned, keys=seals().map(lambda one: tuple(file.key for file in one[1].files)), size_bytes=small),
            st.builds(archive.QualityAssessed, reasons=words),
        ),
    ),
    st.tuples(
        of("key", names),
        st.one_of(
            st.builds(key_aggregate.Defined, key_type=text, fields=words),
            st.builds(key_aggregate.Set, fields=words, fingerprint=fingerprints, scopes=words, expires_ns=small),
            st.builds(
                key_aggregate.Rotated,
                fields=words,
                fingerprint=fingerprints,
                previous=fingerprints,
                scopes=words,
                expires_ns=small,
            ),
            st.builds(key_aggregate.Accessed, process=text, access_id=text, fields=words, fingerprint=fingerprints),
            st.builds(key_aggregate.Verified, check=text, fingerprint=fingerprints, is_good=st.booleans(), detail=text),
            st.builds(key_aggregate.Revoked, fingerprint=fingerprints, reason=text),
            st.builds(key_aggregate.Deleted, fingerprint=fingerprints, reason=text),
        ),
    ),
    st.tuples(
        of("client", names),
        st.one_of(
            st.builds(client.Created, name=text, fingerprint=fingerprints, scopes=words, expires_ns=small),
            st.builds(client.Rotated, fingerprint=fingerprints, previous=fingerprints, expires_ns=small),
            st.builds(client.Accessed, process=text, access_id=text),
            st.builds(client.Revoked, reason=text),
            st.builds(client.Deleted, reason=text),
        ),
    ),
    st.tuples(
        of("dead-letter", names),
        st.one_of(
            st.builds(dead_letter.Recorded, component=text, source=text, position=small, subject=text, what=text, reason=text),
            st.builds(dead_letter.Replayed, detail=text),
            st.builds(dead_letter.Discarded, reason=text),
        ),
    ),
    st.tuples(
        of("feedback", names),
        st.one_of(
            st.builds(feedback.Reported, feed=text, date=dates, ticker=text, kind=text, text=text),
            st.builds(feedback.Triaged, severity=st.just("high"), assignee=text, note=text),
            st.builds(feedback.Investigating, note=text),
            st.builds(feedback.Resolved, resolution=text),
        ),
    ),
    st.tuples(
        of("trading-day", dates),
        st.one_of(
            st.builds(trading_day.Opened, date=dates, start_due_ns=times, end_due_ns=times),
            st.builds(trading_day.Missed, date=dates, due_ns=times, reason=text),
            st.builds(trading_day.Late, phase=st.just("start"), due_ns=times),
            st.builds(trading_day.Failed, status=st.just("active"), error=text, attempts=small),
            st.builds(trading_day.Recovered, status=st.just("active"), detail=text),
            st.builds(trading_day.ForceEnded, status=st.just("active"), reason=text),
        ),
    ),
)


class Told(NamedTuple):
    """`event` None = something that is no event of ours."""

    aggregate: AggregateId
    event: msgspec.Struct | None
    ts_ns: int


histories = st.lists(
    st.one_of(
        st.builds(lambda pair, ts: Told(pair[0], pair[1], ts), told, times),
        st.builds(lambda pair, ts: Told(pair[0], pair[1], ts), others, times),
        st.builds(lambda ts: Told(AggregateId("capture", ("kalshi", "main")), None, ts), times),
    ),
    max_size=40,
)
good_histories = histories.map(lambda history: [one for one in history if one.event is not None])


def journal_of(history: Sequence[Told]) -> MemoryJournal:
    journal = MemoryJournal("t")
    for number, (aggregate, event, ts_ns) in enumerate(history, 1):
        data = {} if event is None else msgspec.to_builtins(event)
        type_ = "capture.dreamt.v9" if event is None else tag_of(event)
        data.pop("type", None)
        raw = msgspec.Raw(msgspec.json.encode(data))
        envelope = Envelope(f"e{number}", type_, *_named(aggregate), number, ts_ns, "test", "", "", "c1", raw)
        journal.put(journal_subject("t", *aggregate), encode_envelope(envelope))
    return journal


def _named(aggregate: AggregateId) -> tuple[str, str]:
    return aggregate.aggregate, aggregate.key


async def everything(store: MemoryRowStore) -> list[Page]:
    return [await store.read(projection.name, prefixes=[""]) for projection in PROJECTIONS]


def without_generation(pages: Sequence[Page]) -> list[Page]:
    return [page._replace(stamp=page.stamp._replace(generation="")) for page in pages]


async def messages(journal: MemoryJournal) -> list[RecordedEvent | PoisonEvent]:
    return [message async for batch in journal.replay() for message in batch]


@settings(max_examples=60, deadline=None)
@given(history=histories, data=st.data())
def test_any_split_with_any_redelivery_gives_the_same_rows_and_digest(history: list[Told], data: st.DataObject) -> None:
    async def law() -> None:
        journal = journal_of(history)
        expected = without_generation(await everything(await fold_in_memory(journal, PROJECTIONS)))
        told = await messages(journal)
        store = MemoryRowStore()
        for projection in PROJECTIONS:
            begun = await store.begin(projection.name, projection.version)
            folder = Folder(projection, store, begun, rows_cached_max=data.draw(st.integers(0, 5)))
            done = 0
            while done < len(told):
                size = data.draw(st.integers(1, len(told)))
                again = data.draw(st.integers(0, done))
                batch = told[done - again : done + size]
                await folder.apply(decode_events(batch, CATALOGUE, projection.aggregates), batch[-1].position)
                done = min(len(told), done + size)
                if data.draw(st.booleans()):
                    # The projector restarts: it knows the stamp and nothing else, and forgets rows as it likes.
                    folder = Folder(projection, store, folder.stamp, rows_cached_max=data.draw(st.integers(0, 5)))
            await store.swap(folder.stamp, None)
        assert without_generation(await everything(store)) == expected

    asyncio.run(law())


@settings(max_examples=25, deadline=None)
@given(history=good_histories)
def test_rebuilt_equals_live_at_every_prefix(history: list[Told]) -> None:
    async def law() -> None:
        journal = journal_of([])
        store = MemoryRowStore()
        for projection in PROJECTIONS:
            await rebuild(journal, store, projection)
        stamps = {projection.name: await store.current(projection.name) for projection in PROJECTIONS}
        folders = [Folder(projection, store, stamps[projection.name]) for projection in PROJECTIONS]  # type: ignore[arg-type]
        whole = journal_of(history)
        for message in await messages(whole):
            for folder in folders:
                await folder.apply(decode_events([message], CATALOGUE, folder.projection.aggregates), message.position)
                folded = await fold_in_memory(whole, [folder.projection], as_of=AsOf(position=message.position))
                rebuilt = await folded.current(folder.projection.name)
                assert rebuilt is not None
                assert rebuilt._replace(generation="") == folder.stamp._replace(generation="")
        for projection in PROJECTIONS:
            assert (await verify(whole, store, projection)).is_good
            outcome = await rebuild(whole, store, projection)
            assert outcome.outcome == "swapped"
            assert outcome.before is not None
            assert outcome.after._replace(generation="") == outcome.before._replace(generation="")

    asyncio.run(law())


@settings(max_examples=60, deadline=None)
@given(history=histories)
def test_the_digest_is_that_of_the_rows(history: list[Told]) -> None:
    async def law() -> None:
        for page in await everything(await fold_in_memory(journal_of(history), PROJECTIONS, batch_events=7)):
            total = shift_digest(0, added=sum(row_digest(key, value) for key, value in page.rows.items()), removed=0)
            assert page.stamp.digest == digest_text(total)
            assert page.stamp.rows == len(page.rows)

    asyncio.run(law())


@settings(max_examples=60, deadline=None)
@given(history=histories, ts_ns=times, position=st.integers(0, 45))
def test_as_of_is_the_longest_prefix_nobody_wrote_later_in(history: list[Told], ts_ns: int, position: int) -> None:
    async def law() -> None:
        journal = journal_of(history)
        length = 0
        for one in history:
            if one.ts_ns > ts_ns:
                break
            length += 1
        for as_of, cut in (
            (AsOf(ts_ns=ts_ns), length),
            (AsOf(position=position), min(position, len(history))),
            (AsOf(position, ts_ns), min(position, length)),
        ):
            found = await everything(await fold_in_memory(journal, PROJECTIONS, as_of=as_of))
            expected = await everything(await fold_in_memory(journal_of(history[:cut]), PROJECTIONS))
            assert [page.rows for page in found] == [page.rows for page in expected]
            assert {page.stamp.position for page in found} == {cut}

    asyncio.run(law())


@settings(max_examples=60, deadline=None)
@given(history=good_histories)
def test_a_manifest_changes_only_with_an_event_that_changed_its_document(history: list[Told]) -> None:
    """What the sink relies on: writing the documents that a commit changed keeps every manifest as the view has it."""

    async def law() -> None:
        journal = journal_of(history)
        shown: dict[str, tuple[bytes, bytes]] = {}
        for position in range(len(history) + 1):
            store = await fold_in_memory(journal, [manifests.MANIFESTS], as_of=AsOf(position=position))
            page = await store.read(manifests.NAME, prefixes=[""])
            gaps = [decode_row(value, GapRow) for key, value in page.rows.items() if is_gap_key(key)]
            for key, value in page.rows.items():
                if manifests.is_document_key(key):
                    manifest = render(decode_row(value, Document), gaps)
                    before = shown.get(key)
                    assert before is None or before[0] != value or before[1] == manifest
                    shown[key] = (value, manifest)

    asyncio.run(law())
