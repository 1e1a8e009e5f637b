"""View `captures`: what each connection to a venue is doing, and each session it had.

connection/{feed}/{connection}          -> Connection
session/{feed}/{connection}/{session}   -> Session
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import msgspec

from ssmd.domain import capture
from ssmd.projections.projection import Projection, Rows, id_parts, position_token, row_key, row_prefix
from ssmd.streams.journal import RecordedEvent

NAME: Final = "captures"
_CONNECTION: Final = "connection"
_SESSION: Final = "session"


class Subscribed(msgspec.Struct, frozen=True, gc=False):
    """An acknowledged subscription. `tickers`: how many, 0 = no ticker filter."""

    sid: int
    channel: str
    tickers: int


class Session(msgspec.Struct, frozen=True, gc=False):
    """One connection made. Times are receive times; `ended_ns` 0 = it lasts."""

    feed: str
    connection: str
    session: int
    connected_ns: int = 0
    ended_ns: int = 0
    cause: str = ""
    evidence: str = ""
    url: str = ""
    wire: str = ""
    instance: str = ""
    epoch: int = 0
    version: str = ""
    config: str = ""
    previous_session: int = 0
    subscriptions: tuple[Subscribed, ...] = ()
    gaps_opened: int = 0
    drifts: int = 0


class Connection(msgspec.Struct, frozen=True, gc=False):
    """A connection as of its latest fact.

    Attributes:
        is_connected: the latest session has not ended.
        since_ns: receive time at which it came to be so.
        cause: why it is not connected, "" while it is.
        drifts: frames that did not fit the mapper; drift: the latest of them in words.
        day_marked: latest date it has closed.
        fact_ns: receive time of the latest fact; position: of its event.
    """

    feed: str
    connection: str
    is_connected: bool = False
    since_ns: int = 0
    cause: str = ""
    session: int = 0
    url: str = ""
    wire: str = ""
    instance: str = ""
    epoch: int = 0
    version: str = ""
    sessions: int = 0
    disconnects: int = 0
    gaps_opened: int = 0
    drifts: int = 0
    drift: str = ""
    clock_steps: int = 0
    tail_cuts: int = 0
    day_marked: str = ""
    fact_ns: int = 0
    position: int = 0


def connections_prefix(feed: str) -> str:
    """Prefix of a feed's `Connection`s."""
    return row_prefix(_CONNECTION, feed)


def sessions_prefix(feed: str) -> str:
    """Prefix of a feed's `Session`s, by connection and then in order."""
    return row_prefix(_SESSION, feed)


_OF_A_SESSION: Final = (
    capture.GapOpened,
    capture.Connected,
    capture.Subscribed,
    capture.Disconnected,
    capture.DriftDetected,
)
"""Events that a `Session` shows."""


@lru_cache(1 << 10)
def _connection_key(feed: str, connection: str) -> str:
    return row_key(_CONNECTION, feed, connection)


@lru_cache(1 << 10)
def _session_key(feed: str, connection: str, session: int) -> str:
    return row_key(_SESSION, feed, connection, position_token(session))


_replace: Final = msgspec.structs.replace


def _fold(rows: Rows, recorded: RecordedEvent, event: msgspec.Struct) -> None:
    if not isinstance(event, capture.CaptureEvent):
        return
    position, envelope, _ = recorded
    feed, name = id_parts(envelope)
    connection_key = _connection_key(feed, name)
    connection = rows.get(connection_key, Connection) or Connection(feed, name)
    fact_ns = max(connection.fact_ns, event.ts_recv_ns)
    if isinstance(event, capture.GapClosed):
        rows.put(connection_key, _replace(connection, fact_ns=fact_ns, position=position))
        return
    if isinstance(event, _OF_A_SESSION):
        session_key = _session_key(feed, name, event.session)
        session = rows.get(session_key, Session) or Session(feed, name, event.session)
        rows.put(session_key, _evolve_session(session, event, envelope.config))
    if isinstance(event, capture.GapOpened):
        gaps_opened = connection.gaps_opened + 1
        rows.put(connection_key, _replace(connection, gaps_opened=gaps_opened, fact_ns=fact_ns, position=position))
        return
    connection = _evolve_connection(connection, event)
    rows.put(connection_key, _replace(connection, fact_ns=fact_ns, position=position))


def _evolve_connection(connection: Connection, event: capture.CaptureEvent) -> Connection:
    """What the event does to it; but for gaps, which `_fold` counts, and for its place."""
    match event:
        case capture.Connected():
            return _replace(
                connection,
                is_connected=True,
                since_ns=event.ts_recv_ns,
                cause="",
                session=event.session,
                url=event.url,
                wire=event.wire,
                instance=event.instance,
                epoch=event.epoch,
                version=event.version,
                sessions=connection.sessions + 1,
            )
        case capture.Disconnected(cause=cause):
            return _replace(
                connection,
                is_connected=False,
                since_ns=event.ts_recv_ns,
                cause=cause,
                disconnects=connection.disconnects + 1,
            )
        case capture.DriftDetected():
            drift = f"{event.what}: {event.frame_type}.{event.field}"
            return _replace(connection, drifts=connection.drifts + 1, drift=drift)
        case capture.ClockStepped():
            return _replace(connection, clock_steps=connection.clock_steps + 1)
        case capture.TailCut():
            return _replace(connection, tail_cuts=connection.tail_cuts + 1)
        case capture.DayMarked(date=date):
            return _replace(connection, day_marked=max(connection.day_marked, date))
        case capture.Started(instance=instance, epoch=epoch, version=version):
            return _replace(connection, instance=instance, epoch=epoch, version=version)
        case capture.Stopped(cause=cause):
            return _replace(connection, is_connected=False, cause=f"stopped: {cause}")
        case _:
            return connection


def _evolve_session(session: Session, event: capture.CaptureEvent, config: str) -> Session:
    if isinstance(event, capture.GapOpened):
        return _replace(session, gaps_opened=session.gaps_opened + 1)
    match event:
        case capture.Connected():
            return _replace(
                session,
                connected_ns=event.ts_recv_ns,
                url=event.url,
                wire=event.wire,
                instance=event.instance,
                epoch=event.epoch,
                version=event.version,
                config=config,
                previous_session=event.previous_session,
            )
        case capture.Subscribed(sid=sid, channel=channel, tickers=tickers):
            return _replace(session, subscriptions=(*session.subscriptions, Subscribed(sid, channel, len(tickers))))
        case capture.Disconnected(cause=cause, evidence=evidence):
            return _replace(session, ended_ns=event.ts_recv_ns, cause=cause, evidence=evidence)
        case capture.DriftDetected():
            return _replace(session, drifts=session.drifts + 1)
        case _:
            return session


CAPTURES: Final = Projection(NAME, 1, frozenset({capture.AGGREGATE}), _fold)
