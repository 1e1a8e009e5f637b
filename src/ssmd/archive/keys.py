"""Keys of archive objects, made and taken apart here alone.

    raw/{env}/{feed}/{YYYY}/{MM}/{DD}/{partition}-{incarnation}-{first:020}-{last:020}.jsonl.zst
    normalized/{env}/{feed}/{schema}/{kind}/m{mapper}/{YYYY}/{MM}/{DD}/{partition}-{incarnation}-{first:020}-{last:020}.capnp.zst
    .../{YYYY}/{MM}/{DD}/manifest.json

Every variable name is a token of `identifiers.encode_token`; `first` and `last` are sequences of the stream that
`incarnation` (lower-case hex) names.
"""

from __future__ import annotations

import re
from typing import Final, Literal, NamedTuple

from ssmd.errors import Malformed
from ssmd.identifiers import decode_token, encode_token

DataType = Literal["raw", "normalized"]

_TOKEN: Final = r"(?:[A-Za-z0-9_-]|%[0-9A-F]{2})+"  # noqa: S105 - a pattern, no secret
_SHELF: Final = (
    rf"(?:raw/(?P<env>{_TOKEN})/(?P<feed>{_TOKEN})"
    rf"|normalized/(?P<env_>{_TOKEN})/(?P<feed_>{_TOKEN})/(?P<schema>{_TOKEN})/(?P<kind>{_TOKEN})/m(?P<mapper>0|[1-9]\d*))"
    r"/(?P<year>\d{4})/(?P<month>\d\d)/(?P<day>\d\d)"
)
_SEGMENT: Final = re.compile(
    rf"{_SHELF}/(?P<partition>{_TOKEN})-(?P<incarnation>[0-9a-f]+)-(?P<first>\d{{20}})-(?P<last>\d{{20}})"
    r"(?:-r(?P<revision>[1-9]\d*))?\.(?P<suffix>.+)"
)
_MANIFEST: Final = re.compile(rf"{_SHELF}/manifest\.json")
_DATE: Final = re.compile(r"\d{4}-\d\d-\d\d")
_INCARNATION: Final = re.compile(r"[0-9a-f]+")
_SUFFIX: Final[dict[DataType, str]] = {"raw": "jsonl.zst", "normalized": "capnp.zst"}


class Shelf(NamedTuple):
    """Where the segments of one feed, date and type (and, if normalized, schema, kind and mapper version) stand."""

    data_type: DataType
    env: str
    feed: str
    date: str
    schema: str = ""
    kind: str = ""
    mapper: int = 0

    @property
    def prefix(self) -> str:
        """The beginning of all keys on this shelf, "/" at its end.

        Raises:
            ValueError: a name is empty, or the date is none.
        """
        if not _DATE.fullmatch(self.date):
            raise ValueError(f"not a date (YYYY-MM-DD): {self.date!r}")
        names = [self.data_type, encode_token(self.env), encode_token(self.feed)]
        if self.data_type == "normalized":
            names += [encode_token(self.schema), encode_token(self.kind), f"m{self.mapper}"]
        return "/".join((*names, *self.date.split("-"), ""))

    @property
    def manifest_key(self) -> str:
        """Key of this shelf's manifest."""
        return f"{self.prefix}manifest.json"


class SegmentName(NamedTuple):
    """One segment on a shelf: the connection's messages `first_seq`..`last_seq` of the stream `incarnation`.

    `revision` 0 = as it was sealed; 1, 2, ... = what took the place of a damaged one.
    """

    shelf: Shelf
    partition: str
    incarnation: str
    first_seq: int
    last_seq: int
    revision: int = 0

    @property
    def key(self) -> str:
        """The object's key.

        Raises:
            ValueError: a name is empty or not of its kind.
        """
        if not _INCARNATION.fullmatch(self.incarnation):
            raise ValueError(f"not the incarnation of a stream (lower-case hex): {self.incarnation!r}")
        file = f"{encode_token(self.partition)}-{self.incarnation}-{self.first_seq:020}-{self.last_seq:020}"
        file += f"-r{self.revision}" if self.revision else ""
        return f"{self.shelf.prefix}{file}.{_SUFFIX[self.shelf.data_type]}"


def _shelf(found: re.Match[str]) -> Shelf:
    date = f"{found['year']}-{found['month']}-{found['day']}"
    if found["env"] is not None:
        return Shelf("raw", decode_token(found["env"]), decode_token(found["feed"]), date)
    env, feed, schema, kind = (decode_token(found[name]) for name in ("env_", "feed_", "schema", "kind"))
    return Shelf("normalized", env, feed, date, schema, kind, int(found["mapper"]))


def parse_segment(key: str) -> SegmentName:
    """The segment whose key is `key`.

    Raises:
        Malformed: it is no segment's key.
    """
    found = _SEGMENT.fullmatch(key)
    try:
        if found:
            name = SegmentName(
                _shelf(found),
                decode_token(found["partition"]),
                found["incarnation"],
                int(found["first"]),
                int(found["last"]),
                int(found["revision"] or 0),
            )
            if name.key == key:
                return name
    except ValueError as error:
        raise Malformed(f"not the key of a segment: {key!r}: {error}") from error
    raise Malformed(f"not the key of a segment: {key!r}")


def parse_manifest(key: str) -> Shelf:
    """The shelf whose manifest has the key `key`.

    Raises:
        Malformed: it is no manifest's key.
    """
    found = _MANIFEST.fullmatch(key)
    try:
        if found:
            return _shelf(found)
    except ValueError as error:
        raise Malformed(f"not the key of a manifest: {key!r}: {error}") from error
    raise Malformed(f"not the key of a manifest: {key!r}")
