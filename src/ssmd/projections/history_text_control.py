"""Events of the control plane in words, as `history_text` has those of capture, archive and trading days.

Of a key or a client only names and the beginning of a fingerprint are told.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from ssmd.domain import client, dead_letter, environment, feedback, key, projection, secmaster_sync
from ssmd.projections.projection import utc_text

_FINGERPRINT_CHARS: Final = 12
_NAMED_MAX: Final = 3


def describe_control(event: msgspec.Struct) -> str:
    """What happened, as one line; "" = nobody taught it."""
    if isinstance(event, key.EVENTS):
        return _key(event)
    if isinstance(event, client.EVENTS):
        return _client(event)
    if isinstance(event, feedback.EVENTS):
        return _feedback(event)
    match event:
        case environment.Applied(config=config, uncommitted=uncommitted, changes=changes):
            commit = f"commit {config[:_FINGERPRINT_CHARS]}" if config else "no commit"
            beside = f", and {len(uncommitted)} not committed: {_named(uncommitted)}" if uncommitted else ""
            return f"applied: {commit}{beside}; {_named(changes) or 'nothing had to be changed'}"
        case environment.TornDown(date=date, removed=removed):
            what = f"what was kept of {date}" if date else "torn down"
            return f"{what}{' removed' if date else ''}: {_named(removed) or 'there was nothing'}"
        case dead_letter.Recorded(component=component, source=source, position=position, reason=reason):
            return f"{component} could not process {source} position {position}: {reason}"
        case dead_letter.Replayed(detail=detail):
            return f"processed after all{because(detail)}"
        case dead_letter.Discarded(reason=reason):
            return f"given up{because(reason)}"
        case _:
            return _sync(event) or _projection(event)


def _key(event: msgspec.Struct) -> str:
    match event:
        case key.Defined(key_type=key_type, fields=fields):
            return f"defined: {key_type} with {', '.join(fields) or 'no fields'}"
        case key.Set(fingerprint=fingerprint, expires_ns=expires_ns):
            return f"set: a value with fingerprint {_short(fingerprint)}{_until(expires_ns)}"
        case key.Rotated(fingerprint=fingerprint, previous=previous, expires_ns=expires_ns):
            return f"rotated: fingerprint {_short(fingerprint)} in place of {_short(previous)}{_until(expires_ns)}"
        case key.Accessed(process=process, fingerprint=fingerprint):
            return f"loaded by {process}: the value with fingerprint {_short(fingerprint)}"
        case key.Verified(is_good=is_good, detail=detail):
            return f"verified: it is {'' if is_good else 'not '}good{because(detail)}"
        case key.ExpiryNoticed(finding=finding, due_ns=due_ns):
            return f"{_FINDINGS[finding]} {utc_text(due_ns)}"
        case key.Revoked(reason=reason):
            return f"revoked{because(reason)}"
        case key.Deleted(reason=reason):
            return f"deleted{because(reason)}"
        case _:
            return ""


_FINDINGS: Final[dict[key.Finding, str]] = {
    "expires-soon": "expires soon: at",
    "expired": "has expired: at",
    "rotation-due": "its rotation is due since",
}


def _client(event: msgspec.Struct) -> str:
    match event:
        case client.Created(name=name, scopes=scopes, feeds=feeds, mode=mode, expires_ns=expires_ns):
            may = f"may {', '.join(scopes) or 'nothing'} on {', '.join(feeds) or 'all feeds'}"
            return f'created: "{name}" {may}, {mode}{_until(expires_ns)}'
        case client.Rotated(fingerprint=fingerprint, previous=previous, expires_ns=expires_ns):
            return f"rotated: fingerprint {_short(fingerprint)} in place of {_short(previous)}{_until(expires_ns)}"
        case client.Accessed(process=process):
            return f"let in by {process}"
        case client.ModeSet(mode=mode):
            return f"is served {mode} from now on"
        case client.DisconnectRequested(reason=reason):
            return f"its connections are to be cut{because(reason)}"
        case client.Revoked(reason=reason):
            return f"revoked{because(reason)}"
        case client.Deleted(reason=reason):
            return f"deleted{because(reason)}"
        case _:
            return ""


def _feedback(event: msgspec.Struct) -> str:
    match event:
        case feedback.Reported(feed=feed, date=date, ticker=ticker, kind=kind, text=text):
            about = " ".join(part for part in (feed, ticker, date) if part)
            return f"{kind} reported of {about or 'no one in particular'}: {text}"
        case feedback.Triaged(severity=severity, assignee=assignee, note=note):
            return f"found to be {severity}{f', for {assignee}' if assignee else ''}{because(note)}"
        case feedback.Investigating(note=note):
            return f"looked into{because(note)}"
        case feedback.Resolved(resolution=resolution):
            return f"resolved: {resolution}"
        case feedback.Invalidated(reason=reason):
            return f"the data is right: {reason}"
        case _:
            return ""


def _sync(event: msgspec.Struct) -> str:
    match event:
        case secmaster_sync.Started(scope=scope):
            return f"sync started: {scope or 'everything'}"
        case secmaster_sync.Completed(counts=counts):
            return f"sync complete: {counts.markets} markets, {counts.listed} listed, {counts.changed} changed"
        case secmaster_sync.Failed(error=error):
            return f"sync failed: {error}"
        case _:
            return ""


def _projection(event: msgspec.Struct) -> str:
    match event:
        case projection.Rebuilt(made=made, before=before, is_different=is_different):
            beside = "" if before is None else f", {'other' if is_different else 'the same'} rows as version {before.version}"
            return f"rebuilt as version {made.version} up to {made.position}: {made.rows} rows{beside}"
        case projection.Diverged(made=made):
            return f"diverged: version {made.version} folds to other rows at position {made.position}; not put in place"
        case projection.Swapped(generation=generation, version=version):
            return f"generation {generation} (version {version}) is what readers see"
        case projection.RolledBack(generation=generation, replaced=replaced, reason=reason):
            return f"rolled back from generation {replaced} to {generation}{because(reason)}"
        case _:
            return ""


def because(reason: str) -> str:
    """A reason behind what happened, "" where there is none."""
    return f" ({reason})" if reason else ""


def _short(fingerprint: str) -> str:
    return fingerprint[:_FINGERPRINT_CHARS]


def _until(expires_ns: int) -> str:
    return f", expires {utc_text(expires_ns)}" if expires_ns else ""


def _named(words: Sequence[str]) -> str:
    more = len(words) - _NAMED_MAX
    return "; ".join((*words[:_NAMED_MAX], f"{more} more") if more > 0 else words)
