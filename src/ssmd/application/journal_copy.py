"""A journal as a file, and a file as a journal again: same positions, subjects and bytes.

The file is JSON lines in UTF-8: a head, a line per message in the order of positions (1, 2, ... without a hole), an end
with the digest of all of them (`streams.journal_anchor`). Nothing is written before the whole file has been checked. An
import that was interrupted goes on where it stopped: a journal that holds the beginning of the file takes the rest.
"""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import Final, NamedTuple

import msgspec

from ssmd.errors import Malformed, Rejected
from ssmd.identifiers import encode_token
from ssmd.streams.journal import EVENTS_PER_APPEND_MAX, Journal
from ssmd.streams.journal_anchor import Anchor, RollingDigest

FORMAT: Final = "ssmd-journal.v1"
RESTORE_BYTES_MAX: Final = 4 << 20
"""Payload bytes written at once."""


class _Head(msgspec.Struct, frozen=True, tag="head"):
    format: str
    env: str


class _Line(msgspec.Struct, frozen=True, tag="message", omit_defaults=True):
    position: int
    subject: str
    payload: str = ""
    payload_b64: str = ""

    @property
    def data(self) -> bytes:
        return base64.b64decode(self.payload_b64) if self.payload_b64 else self.payload.encode()


class _End(msgspec.Struct, frozen=True, tag="end"):
    messages: int
    sha256: str


class Copied(NamedTuple):
    """How much a file holds; `written` of it were new to the journal."""

    messages: int
    sha256: str
    written: int


_DECODER: Final = msgspec.json.Decoder(_Head | _Line | _End)
_ENCODER: Final = msgspec.json.Encoder()


async def exported(journal: Journal, env: str) -> AsyncIterator[bytes]:
    """The lines of the file, each with its newline; up to the head when called.

    Raises:
        Malformed: positions are missing (`ssmd journal verify`).
    """
    digest = RollingDigest(env)
    yield _ENCODER.encode(_Head(FORMAT, env)) + b"\n"
    async for batch in journal.replay():
        lines = []
        for message in batch:
            subject = digest.subject(message)
            digest.add(message)
            try:
                line = _Line(message.position, subject, message.payload.decode())
            except UnicodeDecodeError:
                line = _Line(message.position, subject, payload_b64=base64.b64encode(message.payload).decode())
            lines.append(_ENCODER.encode(line))
        yield b"\n".join(lines) + b"\n"
    yield _ENCODER.encode(_End(digest.position, digest.sha256)) + b"\n"


def checked(lines: Iterable[bytes], env: str) -> _End:
    """The end of a file all of which is as it should be.

    Raises:
        Malformed: with the line, where it is not.
    """
    for message in _messages(lines, env):
        if isinstance(message, _End):
            end = message
    return end


def _messages(lines: Iterable[bytes], env: str) -> Iterator[_Line | _End]:
    """What the lines say, the end last; raises Malformed with the number of the line."""
    check = _FileCheck(env)
    number = 0
    for number, line in enumerate(lines, 1):
        try:
            message = check.read(line)
        except (msgspec.DecodeError, UnicodeDecodeError, ValueError) as error:
            raise Malformed(f"line {number}: {error}", mend="export it again") from error
        except Malformed as error:
            raise Malformed(f"line {number}: {error.message}", mend="export it again") from error
        if message is not None:
            yield message
    if check.end is None:
        raise Malformed(f"line {number + 1}: the end is missing: the file was cut off", mend="export it again")


class _FileCheck:
    """The lines of one file in order; raises Malformed for one that does not fit."""

    def __init__(self, env: str) -> None:
        self._env = env
        self._subjects = f"{encode_token(env)}.journal."
        self._digest = RollingDigest(env)
        self._has_head = False
        self.end: _End | None = None

    def read(self, line: bytes) -> _Line | _End | None:
        """The message or end in `line`, None = the head."""
        message: _Head | _Line | _End = _DECODER.decode(line)
        if self.end is not None:
            raise Malformed("something follows the end")
        if isinstance(message, _Head):
            self._take_head(message)
            return None
        if not self._has_head:
            raise Malformed("no head")
        if isinstance(message, _Line):
            self._take_line(message)
        else:
            self._take_end(message)
        return message

    def _take_head(self, head: _Head) -> None:
        if self._has_head:
            raise Malformed("a second head")
        if head.format != FORMAT:
            raise Malformed(f"format {head.format!r}, expected {FORMAT!r}")
        if head.env != self._env:
            raise Malformed(f"a journal of environment {head.env!r}, not of {self._env!r}: its subjects would not fit")
        self._has_head = True

    def _take_line(self, line: _Line) -> None:
        if line.position != self._digest.position + 1:
            raise Malformed(f"position {line.position} follows {self._digest.position}")
        if not line.subject.startswith(self._subjects):
            raise Malformed(f"subject {line.subject!r} is none of the journal of {self._env}")
        self._digest.add_raw(line.subject, line.data)

    def _take_end(self, end: _End) -> None:
        found = _End(self._digest.position, self._digest.sha256)
        if end != found:
            raise Malformed(f"the messages are {found}, expected {end}")
        self.end = end


def differing_anchors(lines: Iterable[bytes], env: str, anchors: Iterable[Anchor]) -> list[Anchor]:
    """Those of `anchors` that are not of the journal in a file; one behind its end is. Raises as `checked`."""
    wanted: dict[int, list[Anchor]] = {}
    for anchor in anchors:
        wanted.setdefault(anchor.position, []).append(anchor)
    digest = RollingDigest(env)
    differing = [one for one in wanted.pop(0, ()) if one.sha256 != digest.sha256]
    for message in _messages(lines, env):
        if isinstance(message, _Line):
            digest.add_raw(message.subject, message.data)
            differing += [one for one in wanted.pop(digest.position, ()) if one.sha256 != digest.sha256]
    return differing + [one for late in wanted.values() for one in late]


async def imported(journal: Journal, env: str, lines: Callable[[], Iterable[bytes]]) -> Copied:
    """Write a file into an empty journal (or one that holds its beginning).

    Args:
        lines: called twice: to check the file, then to write it.

    Raises:
        Malformed: the file is damaged; nothing was written.
        Rejected: the journal holds something else; nothing was written.
        Unavailable: no answer; the same command goes on.
    """
    end = checked(lines(), env)
    head = await journal.head()
    prefix = len(encode_token(env)) + len(".journal.")
    source = (one for one in _messages(lines(), env) if isinstance(one, _Line))
    await _check_beginning(journal, env, source, head, end)
    position, batch, size = head, list[tuple[str, bytes]](), 0
    for line in source:
        data = line.data
        if batch and (len(batch) == EVENTS_PER_APPEND_MAX or size + len(data) > RESTORE_BYTES_MAX):
            position = await journal.restore(position, batch)
            batch, size = [], 0
        batch.append((line.subject[prefix:], data))
        size += len(data)
    if batch:
        position = await journal.restore(position, batch)
    return Copied(end.messages, end.sha256, position - head)


async def _check_beginning(journal: Journal, env: str, source: Iterator[_Line], head: int, end: _End) -> None:
    """Take from `source` what the journal holds already."""
    if head > end.messages:
        raise Rejected("journal-not-empty", f"the journal holds {head} messages, the file {end.messages}; nothing was written")
    subjects = RollingDigest(env)
    async for batch in journal.replay(until=head):
        for message in batch:
            line = next(source)
            if (message.position, subjects.subject(message), message.payload) != (line.position, line.subject, line.data):
                raise Rejected(
                    "journal-not-empty",
                    f"the journal holds another message at position {message.position} than the file; nothing was written",
                    mend="import into an environment whose journal is empty",
                )
