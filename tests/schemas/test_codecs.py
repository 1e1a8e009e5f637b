"""The packed layout against pycapnp, in both directions."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssmd.errors import Malformed
from ssmd.schemas import codecs, record_decoder, records
from ssmd.schemas.codecs import RecordEncoder, decode_records, encode_record, encode_reference
from ssmd.schemas.record_layout import UNDEFINED
from ssmd.schemas.records import (
    KIND_OF,
    BookDelta,
    BookSnapshot,
    Gap,
    MarketStatus,
    Quote,
    Record,
    Side,
    SizeMeaning,
    Trade,
)

uint32 = st.integers(0, 2**32 - 1)
uint64 = st.integers(0, 2**64 - 1)
number = st.integers(-(2**63), 2**63 - 2)
maybe = st.none() | number
text = st.text(st.characters(codec="utf-8"), max_size=40)
side = st.sampled_from(Side)
header = (text, text, uint64, uint64, uint64, uint64, uint32, uint32, uint64, st.integers(-128, 127), st.integers(-128, 127))
levels = st.lists(st.tuples(number, number), max_size=12).map(tuple)

any_record: st.SearchStrategy[Record] = st.one_of(
    st.builds(Trade, *header, text, number, number, side, st.booleans()),
    st.builds(BookDelta, *header, number, number, side, st.sampled_from(SizeMeaning)),
    st.builds(BookSnapshot, *header, levels, levels, st.booleans()),
    st.builds(Quote, *header, *[maybe] * 8),
    st.builds(MarketStatus, *header, text, text, uint64, uint64, text, maybe, text),
    st.builds(Gap, *header, text, text, text, uint64, uint64, text, uint64, uint64, text),
)

HEADER = ("kalshi", "KXBTC15M-26MAY141215-15", 1_778_768_091_123_456_789, 1_778_768_091_123_999_000, 17, 42, 1, 2, 99, -4, -2)
ONE_OF_EACH: tuple[Record, ...] = (
    Trade(*HEADER, "0d9f5f5c-87ba-4a51-9f2b-8de5b6a3e6a1", 4200, 1300, Side.BID, False),
    BookDelta(*HEADER, 4200, -1300, Side.ASK, SizeMeaning.CHANGE),
    BookSnapshot(*HEADER, ((4200, 100), (4100, 250)), ((4300, 7),), True),
    Quote(*HEADER, 4200, None, 4300, 0, None, None, 10**12, -1),
    MarketStatus(*HEADER, "determined", "determined", 5, 6, "yes", 10000, '{"ü": "žluťoučký"}'),
    Gap(*HEADER, "17:42", "opened", "disconnected", 3, 0, "orderbook_delta", 100, 105, "socket closed: code 1006"),
)


@given(any_record)
@settings(max_examples=200, deadline=None)
def test_a_packed_record_is_byte_equal_to_the_reference(record: Record) -> None:
    assert encode_record(record) == encode_reference(record)


@given(st.lists(any_record, max_size=5))
@settings(max_examples=200, deadline=None)
def test_what_was_encoded_is_decoded(written: list[Record]) -> None:
    assert list(decode_records(b"".join(map(encode_record, written)))) == written


@given(any_record)
@settings(max_examples=200, deadline=None)
def test_the_reference_reader_agrees_with_the_fast_one(record: Record) -> None:
    data = encode_record(record)
    assert record_decoder.read_message(data, 0, len(data)) == codecs._read_reference(data, 0, len(data)) == record


@given(any_record, st.data())
@settings(max_examples=150, deadline=None)
def test_a_damaged_message_is_read_as_the_reference_reads_it_or_refused(record: Record, data: st.DataObject) -> None:
    message = bytearray(encode_record(record))
    for _ in range(data.draw(st.integers(1, 3))):
        message[data.draw(st.integers(8, len(message) - 1))] ^= data.draw(st.integers(1, 255))
    damaged = bytes(message)
    try:
        expected: Record | None = codecs._read_reference(damaged, 0, len(damaged))
    except Malformed:
        expected = None
    try:
        found: Record | None = next(decode_records(damaged))
    except Malformed:
        found = None
    assert found == expected


@pytest.mark.parametrize("record", ONE_OF_EACH, ids=lambda record: KIND_OF[type(record)])
def test_every_cut_is_malformed_and_names_the_message(record: Record) -> None:
    data = encode_record(record)
    for cut in range(1, len(data)):
        reader = decode_records(data + data[:cut])
        assert next(reader) == record
        with pytest.raises(Malformed, match=f"message at byte {len(data)} is cut"):
            next(reader)


def test_a_message_of_several_segments_is_read() -> None:
    record = ONE_OF_EACH[4]
    message = codecs._schema().new_message(num_first_segment_words=12)
    for field in record.__struct_fields__[:11]:
        setattr(message, codecs._CAMEL[field], getattr(record, field))
    body = message.init("marketStatus")
    for field in record.__struct_fields__[11:]:
        setattr(body, codecs._CAMEL[field], getattr(record, field))
    data = message.to_bytes()
    assert struct.unpack_from("<I", data)[0] > 0
    assert list(decode_records(data + encode_record(record))) == [record, record]
    with pytest.raises(Malformed, match="message at byte 0 is cut"):
        next(decode_records(data[:-8]))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("price", 2**63),
        ("price", UNDEFINED),
        ("size", UNDEFINED),
        ("n", -1),
        ("n", 2**64),
        ("index", 2**32),
        ("price_exponent", 128),
        ("ts_recv_ns", -1),
        ("ticker", "\ud800"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(field: str, value: object) -> None:
    record = msgspec.structs.replace(ONE_OF_EACH[1], **{field: value})
    with pytest.raises(Malformed, match=f"BookDelta.*{field} = "):
        encode_record(record)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (msgspec.structs.replace(ONE_OF_EACH[0], size=2**63), "size"),
        (msgspec.structs.replace(ONE_OF_EACH[0], price=UNDEFINED), "price"),
        (msgspec.structs.replace(ONE_OF_EACH[3], volume=UNDEFINED), "volume"),
        (msgspec.structs.replace(ONE_OF_EACH[2], bids=((1, UNDEFINED),)), "a level in bids"),
        (msgspec.structs.replace(ONE_OF_EACH[2], asks=((2**63, 1),)), "a level in asks"),
        (msgspec.structs.replace(ONE_OF_EACH[4], settlement_price=UNDEFINED), "settlement_price"),
        (msgspec.structs.replace(ONE_OF_EACH[5], seq_found=-1), "seq_found"),
        (msgspec.structs.replace(ONE_OF_EACH[1], price=1.5), "does not fit"),
        ("BookDelta", "str is no record"),
    ],
)
def test_no_kind_lets_a_number_through_that_would_read_back_otherwise(record: Record, message: str) -> None:
    with pytest.raises(Malformed, match=message):
        encode_record(record)


def test_no_value_is_told_apart_from_zero() -> None:
    quote = ONE_OF_EACH[3]
    assert isinstance(quote, Quote)
    read = next(decode_records(encode_record(quote)))
    assert isinstance(read, Quote)
    assert (read.bid_size, read.ask_size, read.open_interest) == (None, 0, -1)


def test_a_delta_without_a_price_is_malformed() -> None:
    data = bytearray(encode_record(ONE_OF_EACH[1]))
    data[-24:-16] = struct.pack("<q", UNDEFINED)
    with pytest.raises(Malformed, match="message at byte 0: price has no value"):
        next(decode_records(bytes(data)))


def test_an_enumerant_of_a_later_definition_is_malformed() -> None:
    data = bytearray(encode_record(ONE_OF_EACH[1]))
    data[-8] = 9
    with pytest.raises(Malformed, match="message at byte 0 is no Record"):
        next(decode_records(bytes(data)))


def test_templates_are_bounded_and_do_not_change_the_bytes() -> None:
    encoder = RecordEncoder(templates_max=3)
    for at in range(20):
        for record in (ONE_OF_EACH[0], ONE_OF_EACH[1], ONE_OF_EACH[3]):
            renamed = msgspec.structs.replace(record, ticker=f"T{at % 7}")
            assert encoder.encode(renamed) == encode_reference(renamed)
    assert max(len(encoder._books), len(encoder._quotes), len(encoder._trades)) <= 3


def test_every_field_of_the_definition_has_its_field_in_the_records() -> None:
    schema = codecs._schema().schema
    fields = {name for name in schema.fieldnames if name not in codecs.MEMBER_OF_KIND.values()}
    assert fields == {codecs._CAMEL[name] for name in records.Header.__struct_fields__}
    for kind, member in codecs.MEMBER_OF_KIND.items():
        body = schema.fields[member].schema
        own = records.TYPE_OF_KIND[kind].__struct_fields__[len(records.Header.__struct_fields__) :]
        assert [*body.fieldnames] == [codecs._CAMEL[name] for name in own]


def test_the_packaged_definition_is_the_one_hashed() -> None:
    assert codecs.definition().startswith(b"@0xd8f1c2b7a4e35961;")
    assert len(codecs.definition_sha256()) == 64


def test_importing_the_codecs_imports_no_capnp_and_using_them_leaves_no_hook() -> None:
    code = (
        "import sys; before = list(sys.meta_path); import ssmd.schemas.codecs as c; assert 'capnp' not in sys.modules; "
        "c._schema(); assert sys.meta_path == before, sys.meta_path"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.needs_tool("capnp")
@pytest.mark.parametrize("record", ONE_OF_EACH, ids=lambda record: KIND_OF[type(record)])
def test_debians_capnp_reads_every_kind(record: Record, tmp_path: Path) -> None:
    definition = tmp_path / "market.capnp"
    definition.write_bytes(codecs.definition())
    command = ["capnp", "convert", "binary:json", str(definition), "Record"]
    found = subprocess.run(command, input=encode_record(record) * 2, capture_output=True, check=True, timeout=30)
    first, second = json.loads("[" + found.stdout.decode().replace("}\n{", "},{").replace("}{", "},{") + "]")
    assert first == second
    assert (first["feed"], first["ticker"], first["n"]) == (record.feed, record.ticker, str(record.n))
    member = codecs.MEMBER_OF_KIND[KIND_OF[type(record)]]
    fields = [codecs._CAMEL[name] for name in record.__struct_fields__[11:]]
    assert sorted(first[member]) == sorted(fields)
    named = {name: getattr(record, name) for name in record.__struct_fields__[11:]}
    texts = {codecs._CAMEL[name]: value for name, value in named.items() if isinstance(value, str)}
    assert {name: first[member][name] for name in texts} == texts


@given(st.lists(any_record, max_size=5))
@settings(max_examples=50, deadline=None)
def test_a_survey_tells_what_decoding_would(written: list[Record]) -> None:
    data = b"".join(map(encode_record, written))
    times = [record.ts_recv_ns for record in written]
    assert codecs.survey(data)[0] == len(written)
    if times:
        assert codecs.survey(data) == (len(written), min(times), max(times))
    if data:
        with pytest.raises(Malformed, match="is cut"):
            codecs.survey(data[:-1])
