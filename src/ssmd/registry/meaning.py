"""What a change of the registry means: which fields, environments, streams, keys and days it touches, and what must roll.

Compared are documents, not texts: an edit of comments, order or quotes means nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

import msgspec

from ssmd.registry.documents import EnvironmentDocument, FeedDocument, FeedVersion, SchemaDocument
from ssmd.registry.integrity import split_schema, version_in_force
from ssmd.registry.sources import Sources, read_sources
from ssmd.registry.tree import Tree

_AT_REST: Final = frozenset({"status", "retention", "limits", "schedule"})
"""Sections of an environment that no running process has read at its start."""
_KEY_AT_REST: Final = frozenset({"rotation_days"})
_FEED_AT_REST: Final = frozenset({"capabilities", "calendar", "effective_from", "effective_to"})


class FieldChange(NamedTuple):
    """One leaf of one document. `old`, `new`: None = it is not there (or the document is not)."""

    document: str
    field: str
    old: Any
    new: Any


class Impact(NamedTuple):
    """What it means for one environment.

    Attributes:
        what: created, removed or changed.
        streams: NATS streams whose definition changes.
        keys: key definitions that are touched.
        days: which trading days see it, in words.
        must_roll: a running system must be restarted to work by it.
        reasons: the fields that make it so.
    """

    environment: str
    what: str
    streams: tuple[str, ...]
    keys: tuple[str, ...]
    days: str
    must_roll: bool
    reasons: tuple[str, ...]


class Meaning(NamedTuple):
    """`texts`: files that changed without a change of meaning; `unread`: files that one side cannot read."""

    fields: tuple[FieldChange, ...]
    impacts: tuple[Impact, ...]
    texts: tuple[str, ...]
    unread: tuple[str, ...]


def meaning_of(old: Tree, new: Tree, *, date: str) -> Meaning:
    """What the step from `old` to `new` means as of `date` (YYYY-MM-DD, UTC)."""
    before, after = read_sources(old)[0], read_sources(new)[0]
    fields: list[FieldChange] = []
    texts: list[str] = []
    for name in sorted({*old.files, *new.files}):
        was, now = old.files.get(name), new.files.get(name)
        if was == now:
            continue
        if not name.endswith(".yaml"):
            if _lines(was) != _lines(now):
                fields.append(FieldChange(name, "definition", _size(was), _size(now)))
            else:
                texts.append(name)
            continue
        found = list(_leaf_changes(name, _document(before, name), _document(after, name)))
        fields += found
        if not found:
            texts.append(name)
    unread = sorted({f"{name}.yaml" for name in before.broken | after.broken})
    names = sorted({*before.environments, *after.environments})
    impacts = [impact for name in names if (impact := _impact(name, before, after, date)) is not None]
    return Meaning(tuple(fields), tuple(impacts), tuple(name for name in texts if name not in unread), tuple(unread))


def _lines(payload: bytes | None) -> bytes | None:
    return None if payload is None else payload.replace(b"\r\n", b"\n")


def _size(payload: bytes | None) -> str | None:
    return None if payload is None else f"{len(payload)} bytes"


def _document(sources: Sources, name: str) -> msgspec.Struct | None:
    folder, _, file = name.partition("/")
    found: Mapping[str, Any] = getattr(sources, folder, {})
    source = found.get(file.removesuffix(".yaml"))
    return None if source is None else source.document


def leaves(value: Any, at: str = "") -> Iterator[tuple[str, Any]]:
    """Every leaf of a document with its dotted name; an empty mapping or list is a leaf, and so is a list of scalars.

    Versions are named by what tells them apart, not by their place: versions[2026-03-12].wire, versions[1].status.
    """
    if isinstance(value, msgspec.Struct):
        for name in value.__struct_fields__:
            yield from leaves(getattr(value, name), f"{at}.{name}" if at else name)
    elif isinstance(value, Mapping) and value:
        for name, part in value.items():
            yield from leaves(part, f"{at}.{name}" if at else str(name))
    elif isinstance(value, tuple) and any(isinstance(part, msgspec.Struct) for part in value):
        for index, part in enumerate(value):
            mark = next((getattr(part, name) for name in ("effective_from", "name") if hasattr(part, name)), index)
            yield from leaves(part, f"{at}[{getattr(part, 'version', mark)}]")
    else:
        yield at, value


def _leaf_changes(name: str, old: Any, new: Any) -> Iterator[FieldChange]:
    was = {} if old is None else dict(leaves(old))
    now = {} if new is None else dict(leaves(new))
    if old is None or new is None:
        if old is not new:
            yield FieldChange(name, "", None if old is None else "there", None if new is None else "there")
        return
    for field in dict.fromkeys([*was, *now]):
        if was.get(field) != now.get(field):
            yield FieldChange(name, field, was.get(field), now.get(field))


def _impact(name: str, before: Sources, after: Sources, date: str) -> Impact | None:
    old, new = before.environments.get(name), after.environments.get(name)
    if old is None or new is None:
        if f"environments/{name}" in before.broken | after.broken:
            return None
        there = new or old
        if there is None:
            return None
        keys = tuple(there.document.keys)
        what = "created" if old is None else "removed"
        return Impact(name, what, _streams(name), keys, f"from {date} on", old is not None, (what,) if old is not None else ())
    changed = [change.field for change in _leaf_changes("", old.document, new.document)]
    feed = _feed_changes(old.document, before, after, date)
    schema = _schema_changes(new.document, before, after)
    if not changed and not feed and not schema and not _feed_days(old.document, before, after):
        return None
    keys = tuple(sorted({field.split(".")[1] for field in changed if field.startswith("keys.")}))
    reasons = [field for field in changed if _rolls(field)]
    reasons += [
        f"feed {old.document.feed}: {field}" for field in feed if field.rpartition("].")[2].split(".")[0] not in _FEED_AT_REST
    ]
    reasons += [f"schema {new.document.schema}: {field}" for field in schema]
    windows = _feed_days(old.document, before, after)
    is_limit = {"transport.max_age_hours", "transport.max_bytes"} & set(changed)
    streams = tuple(f"{name}-{role}" for role in ("raw", "market")) if is_limit else ()
    if any(field.startswith(("transport.backend", "transport.url", "journal.")) for field in changed):
        streams = _streams(name)
    return Impact(name, "changed", streams, keys, _days(changed, windows, date), bool(reasons), tuple(reasons))


def _streams(name: str) -> tuple[str, ...]:
    return tuple(f"{name}-{role}" for role in ("raw", "market", "dlq", "journal"))


def _rolls(field: str) -> bool:
    if field.startswith("keys."):
        return field.rpartition(".")[2] not in _KEY_AT_REST
    return field.partition(".")[0] not in _AT_REST


def _feed_changes(environment: EnvironmentDocument, before: Sources, after: Sources, date: str) -> list[str]:
    """Changes of the feed's version in force that the environment sees: fields, with the version's date."""
    old, new = before.feeds.get(environment.feed), after.feeds.get(environment.feed)
    if old is None or new is None:
        return []
    was, now = version_in_force(old.document, date), version_in_force(new.document, date)
    return [
        f"versions[{now.effective_from if now else date}].{change.field or 'in force'}"
        for change in _leaf_changes("", was, now)
    ]


def _schema_changes(environment: EnvironmentDocument, before: Sources, after: Sources) -> list[str]:
    name, number = split_schema(environment.schema)
    found: list[SchemaDocument | None] = [
        source.document if (source := sources.schemas.get(name)) is not None else None for sources in (before, after)
    ]
    versions = [
        next((one for one in document.versions if one.version == number), None) if document else None for document in found
    ]
    if versions[0] is None or versions[1] is None:
        return []
    return ["sha256"] if versions[0].sha256 != versions[1].sha256 else []


def _days(changed: list[str], windows: list[str], date: str) -> str:
    if any(field == "timezone" for field in changed):
        return f"all from {date} on, with other bounds"
    if any(_rolls(field) or field.startswith("schedule") for field in changed):
        return ", ".join([*windows, f"from {date} on"])
    return ", ".join(windows) or "none"


def _feed_days(environment: EnvironmentDocument, before: Sources, after: Sources) -> list[str]:
    old, new = before.feeds.get(environment.feed), after.feeds.get(environment.feed)
    return [] if old is None or new is None else _version_days(old.document, new.document)


def _version_days(old: FeedDocument, new: FeedDocument) -> list[str]:
    """The days of the versions that are not alike, as FIRST..LAST; LAST is empty while a version is open."""
    was, now = (_windows(document) for document in (old, new))
    touched = {first: last for first, (version, last) in now.items() if was.get(first) != (version, last)}
    touched |= {first: last for first, (_, last) in was.items() if first not in now}
    return [f"{first}..{last}" for first, last in sorted(touched.items())]


def _windows(feed: FeedDocument) -> dict[str, tuple[FeedVersion, str]]:
    """First day -> (version, last day)"""
    nexts = [*(version.effective_from for version in feed.versions[1:]), ""]
    return {
        version.effective_from: (version, version.effective_to or (f"before {following}" if following else ""))
        for version, following in zip(feed.versions, nexts, strict=True)
    }
