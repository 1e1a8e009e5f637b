"""Every payload comes back byte for byte, and ordinary frames are read with jq."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssmd.errors import Malformed
from ssmd.schemas.blocks import NO_DIGEST, Entry, EntryKind, encode_block, survey_block
from ssmd.schemas.raw_line import DEPTH_MAX, LineEncoder, RawLine, read_lines

IN, OUT, CTL = EntryKind.IN, EntryKind.OUT, EntryKind.CTL

json_text = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
).map(lambda value: json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass"))
payload = st.one_of(
    json_text,
    json_text.map(lambda text: text + b"\n"),
    st.binary(max_size=12),
    st.text(max_size=8).map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.sampled_from(
        [
            b"",
            b"\n",
            b"\n\n",
            b"{}\n\n",
            b"{}\r\n",
            b" {}",
            b"{} ",
            b"{}\n ",
            b"{\n}",
            b'"\xff"',
            b'"\\ud800"',
            b"{}{}",
            b"{},{}",
        ]
    ),
)
entry_kind = st.sampled_from([IN, IN, IN, IN, OUT, CTL])
blocks = st.lists(st.tuples(st.integers(1, 3), st.lists(st.tuples(entry_kind, payload), min_size=1, max_size=4)), max_size=6)


def encode(encoder: LineEncoder, session: int, payloads: Sequence[bytes]) -> list[bytes]:
    lines = encoder.encode(session, [Entry(IN, n, 10 + n, payload) for n, payload in enumerate(payloads, 1)])
    return lines.splitlines(keepends=True)


@given(blocks)
@settings(max_examples=100, deadline=None)
def test_reading_what_was_written_is_identity(written: list[tuple[int, list[tuple[EntryKind, bytes]]]]) -> None:
    encoder = LineEncoder('m"%d%n')
    expected: list[RawLine] = []
    lines = b""
    for at, (session, entries) in enumerate(written):
        block = [Entry(kind, at * 10 + i, 1_778_768_091 + at, data) for i, (kind, data) in enumerate(entries)]
        expected += [RawLine('m"%d%n', session, entry) for entry in block]
        lines += encoder.encode(session, block)
    assert list(read_lines(lines.split(b"\n")[:-1])) == expected
    for line in lines.split(b"\n")[:-1]:
        json.loads(line.decode())


@given(blocks)
@settings(max_examples=100, deadline=None)
def test_a_line_does_not_depend_on_how_entries_are_blocked(written: list[tuple[int, list[tuple[EntryKind, bytes]]]]) -> None:
    together, apart = LineEncoder("main"), LineEncoder("main")
    for session, entries in written:
        block = [Entry(kind, i, 5, data) for i, (kind, data) in enumerate(entries)]
        assert together.encode(session, block) == b"".join(apart.encode(session, [entry]) for entry in block)


def test_an_ordinary_session_with_newlines() -> None:
    assert encode(LineEncoder("main"), 7, [b'{"a":1}\n', b'{"a": 1.50,"a":2}\n']) == [
        b'{"ts_recv_ns":11,"conn":"main","session":7,"n":1,"newline":true,"frame":{"a":1}}\n',
        b'{"ts_recv_ns":12,"conn":"main","session":7,"n":2,"newline":true,"frame":{"a": 1.50,"a":2}}\n',
    ]


def test_directions_are_told_and_do_not_decide_about_newlines() -> None:
    encoder = LineEncoder("main")
    entries = [
        Entry(CTL, 1, 5, b'{"type":"connected"}'),
        Entry(OUT, 2, 6, b'{"id":1}'),
        Entry(IN, 3, 7, b"{}\n"),
        Entry(OUT, 4, 8, b"{}\n"),
        Entry(IN, 5, 9, b"{}"),
    ]
    lines = encoder.encode(7, entries).splitlines()
    assert lines == [
        b'{"ts_recv_ns":5,"conn":"main","session":7,"n":1,"dir":"ctl","frame":{"type":"connected"}}',
        b'{"ts_recv_ns":6,"conn":"main","session":7,"n":2,"dir":"out","frame":{"id":1}}',
        b'{"ts_recv_ns":7,"conn":"main","session":7,"n":3,"newline":true,"frame":{}}',
        b'{"ts_recv_ns":8,"conn":"main","session":7,"n":4,"dir":"out","text":"{}\\n"}',
        b'{"ts_recv_ns":9,"conn":"main","session":7,"n":5,"frame":{}}',
    ]
    assert [line.entry for line in read_lines(lines)] == entries
    assert encoder.newline(7)
    assert not encoder.newline(8)


@pytest.mark.parametrize(
    ("given_bytes", "content"),
    [
        (b'{"a":1}', b'"frame":{"a":1}'),
        (b'{"a":1,"a":2, "b":[ ]}', b'"frame":{"a":1,"a":2, "b":[ ]}'),
        (b"123456789012345678901234567890.10", b'"frame":123456789012345678901234567890.10'),
        (b"1e999", b'"frame":1e999'),
        ('"ü\u2028"'.encode(), '"frame":"ü\u2028"'.encode()),
        (b"null", b'"frame":null'),
        (b"", b'"text":""'),
        (b"ping", b'"text":"ping"'),
        (b' {"a":1}', b'"text":" {\\"a\\":1}"'),
        (b'{"a":1} ', b'"text":"{\\"a\\":1} "'),
        (b'{"a":\n1}', b'"text":"{\\"a\\":\\n1}"'),
        (b'{"a":\r1}', b'"text":"{\\"a\\":\\r1}"'),
        (b"{}{}", b'"text":"{}{}"'),
        (b"{}\n\n", b'"text":"{}\\n\\n"'),
        (b"NaN", b'"text":"NaN"'),
        (b'"\xff"', b'"b64":"Iv8i"'),
        (b'"\xed\xa0\x80"', b'"b64":"Iu2ggCI="'),
        (b"[" * DEPTH_MAX + b"]" * DEPTH_MAX, b'"frame":' + b"[" * DEPTH_MAX + b"]" * DEPTH_MAX),
        (b"[" * 129 + b"]" * 129, b'"text":"' + b"[" * 129 + b"]" * 129 + b'"'),
        (b"[" * 100_000 + b"]" * 100_000, b'"text":"' + b"[" * 100_000 + b"]" * 100_000 + b'"'),
        (b"[" + b'"[[",' * 400 + b"[]]", b'"frame":[' + b'"[[",' * 400 + b"[]]"),
    ],
)
def test_what_a_payload_is_stored_as(given_bytes: bytes, content: bytes) -> None:
    for payloads in ([given_bytes, b"0"], [b"0", given_bytes], [b"0", b"1", given_bytes, b"2"]):
        lines = encode(LineEncoder("m"), 1, payloads)
        at = payloads.index(given_bytes)
        assert lines[at] == b'{"ts_recv_ns":%d,"conn":"m","session":1,"n":%d,%b}\n' % (11 + at, at + 1, content)
        assert [line.entry.payload for line in read_lines(lines)] == payloads


def test_frames_checked_together_cannot_pose_as_json_together() -> None:
    encoder = LineEncoder("m")
    encode(encoder, 1, [b"0"])
    lines = encoder.encode(1, [Entry(IN, 2, 5, b'"a'), Entry(IN, 3, 5, b'b"'), Entry(IN, 4, 5, b"[1"), Entry(IN, 5, 5, b"2]")])
    assert [json.loads(line).get("text") for line in lines.splitlines()] == ['"a', 'b"', "[1", "2]"]


def test_a_capture_is_read_alike() -> None:
    capture = [
        b'{"ts_recv_ns":5,"conn":"a","frame":{"x":1}}\n',
        b'{"ts_recv_ns":6,"conn":"b","frame":{"x":2}}\n',
        b'{"ts_recv_ns":7,"conn":"a","frame":{"x":3}}',
    ]
    assert list(read_lines(capture)) == [
        RawLine("a", 1, Entry(IN, 1, 5, b'{"x":1}')),
        RawLine("b", 2, Entry(IN, 1, 6, b'{"x":2}')),
        RawLine("a", 1, Entry(IN, 2, 7, b'{"x":3}')),
    ]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"", "no line of the raw archive"),
        (b"{", "no line of the raw archive"),
        (b'{"conn":"a","frame":1}', "ts_recv_ns"),
        (b'{"ts_recv_ns":1.5,"conn":"a","frame":1}', "ts_recv_ns"),
        (b'{"ts_recv_ns":1,"conn":"a","frame":1,"color":2}', "color"),
        (b'{"ts_recv_ns":1,"conn":"a"}', "exactly one"),
        (b'{"ts_recv_ns":1,"conn":"a","frame":1,"text":"1"}', "exactly one"),
        (b'{"ts_recv_ns":1,"conn":"a","b64":"x"}', "no base64"),
        (b'{"ts_recv_ns":1,"conn":"a","dir":"up","frame":1}', "dir"),
        (b'{"ts_recv_ns":1,"conn":"a","frame":' + b"[" * 100_000, "no line of the raw archive"),
    ],
)
def test_a_bad_line_is_named(line: bytes, reason: str) -> None:
    reader = read_lines([b'{"ts_recv_ns":1,"conn":"a","frame":1}', line])
    assert next(reader).entry.payload == b"1"
    with pytest.raises(Malformed, match=f"line 2.*{reason}"):
        next(reader)


def test_the_lines_of_a_whole_block_are_those_of_its_entries() -> None:
    frames = [b'{"a":1}\n', b'{"a":"\xc3\xa9"}\n', b"[[1]]\n", b"7\n"]
    for payloads, told in (
        (frames, 0),
        ([one[:-1] for one in frames], 0),
        ([*frames, b"no json\n"], len(b'"newline":true,"frame":no json') - len(b'"text":"no json\\n"')),
        ([b'{"a":1}\n{"b":2}\n', b"1\n", b"[1 \n", b"]\n"], None),
        ([b"", *frames], None),
    ):
        # From n 98 on: the numbers get longer within the block.
        entries = [Entry(EntryKind.IN, 98 + i, 10**18 + i, payload) for i, payload in enumerate(payloads)]
        block = encode_block(7, 98, [(kind, ts_recv_ns, payload) for kind, _, ts_recv_ns, payload in entries], NO_DIGEST)
        apart, whole = LineEncoder("m"), LineEncoder("m")
        lines, gathered = apart.encode(7, entries), whole.gather(block, survey_block(block))
        assert gathered.encode() == lines
        assert whole.newline(7) == apart.newline(7)
        if told is not None:
            assert gathered.size_bytes - len(lines) == told
