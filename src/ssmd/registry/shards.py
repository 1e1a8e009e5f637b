"""The rules of shards: together they take every ticker, and none is taken twice."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from ssmd.registry.documents import NAME_FORM, EnvironmentDocument, Shard
from ssmd.registry.findings import Finding
from ssmd.registry.sources import Source


def takes(pattern: str, ticker: str) -> bool:
    """Whether `pattern` selects `ticker`: it equals it, or ends in `*` and the ticker begins so."""
    return ticker.startswith(pattern[:-1]) if pattern.endswith("*") else ticker == pattern


def overlap(one: str, other: str) -> bool:
    """Whether some ticker is selected by both patterns."""
    if one.endswith("*") and other.endswith("*"):
        return one[:-1].startswith(other[:-1]) or other[:-1].startswith(one[:-1])
    return takes(one, other) if one.endswith("*") else takes(other, one)


def shard_of(shards: Mapping[str, Shard], ticker: str) -> str:
    """Name of the shard that takes `ticker`, "" = none does."""
    rest = ""
    for name, shard in shards.items():
        if any(takes(pattern, ticker) for pattern in shard.tickers):
            return name
        if shard.rest:
            rest = name
    return rest


def shard_findings(source: Source[EnvironmentDocument]) -> Iterator[Finding]:
    """Whether the names are names, and the selectors total and disjoint."""
    shards = source.document.shards
    if not shards:
        return
    yield from _misnamed(source)
    rests = [name for name, shard in shards.items() if shard.rest]
    for name in rests[1:]:
        message = f'shard "{name}" takes the rest, which "{rests[0]}" takes already'
        yield source.finding(("shards", name, "rest"), "shard-overlap", message, "one shard takes the rest")
    seen: list[tuple[str, str]] = []
    for name, shard in shards.items():
        if not shard.tickers and not shard.rest:
            message = f'shard "{name}" takes nothing'
            yield source.finding(("shards", name), "empty-shard", message, "give it tickers: [...], or rest: true")
        for index, pattern in enumerate(shard.tickers):
            at = ("shards", name, "tickers", index)
            if not pattern or "*" in pattern[:-1]:
                yield source.finding(at, "wrong-form", f'"{pattern}" is no selector', "write a ticker, or its beginning and *")
                continue
            for owner, earlier in seen:
                if overlap(pattern, earlier):
                    message = f'"{pattern}" of shard "{name}" overlaps "{earlier}" of shard "{owner}"'
                    yield source.finding(at, "shard-overlap", message, "a ticker belongs to one shard")
            seen.append((name, pattern))
    if not rests:
        yield from _not_total(source)


def _misnamed(source: Source[EnvironmentDocument]) -> Iterator[Finding]:
    """A shard's name is part of its connection's, and so of files and subjects."""
    for name in source.document.shards:
        if not re.fullmatch(NAME_FORM, name):
            yield source.finding(("shards", name), "wrong-form", f"shard {name!r} must be named of a-z, 0-9 and -")


def _not_total(source: Source[EnvironmentDocument]) -> Iterator[Finding]:
    tickers = source.document.capture.tickers
    missed = [ticker for ticker in tickers if not shard_of(source.document.shards, ticker)]
    if not tickers or missed:
        which = f'"{missed[0]}"' if missed else "tickers that no selector names"
        yield source.finding(("shards",), "shards-not-total", f"no shard takes {which}", "add rest: true to one shard")


def limit_findings(source: Source[EnvironmentDocument]) -> Iterator[Finding]:
    """Whether the disk a process may use holds what it is told to keep."""
    document = source.document
    disk = document.limits.disk_bytes
    if disk and disk < document.tape.bytes_max:
        message = f"limits.disk_bytes {disk} is less than tape.bytes_max {document.tape.bytes_max}"
        yield source.finding(("limits", "disk_bytes"), "limit-too-low", message, "raise it, or lower tape.bytes_max")
