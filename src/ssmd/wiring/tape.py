"""Tapes of an environment: where they are, and how the streams are made again from one."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from ssmd.domain.capture import CaptureEvent
from ssmd.errors import Misconfigured, Unavailable
from ssmd.exchanges.adapter import Mapper
from ssmd.exchanges.kalshi.normalize import KalshiMapper
from ssmd.identifiers import RandomBytes
from ssmd.services.connector.tape_follower import Names, TapeFollower
from ssmd.streams.publisher import NOWHERE, EntryPlace, OrderedPublisher
from ssmd.streams.tape_files import indexes
from ssmd.wiring.backends import open_transport
from ssmd.wiring.environment import ResolvedEnvironment

if TYPE_CHECKING:
    from collections.abc import Generator

    from ssmd.streams.transport import Transport

TAPES: Final = "tape"


class Republished(msgspec.Struct, frozen=True):
    """What a republishing came to. Places are (session, n): of the streams before, and of the tape's end, now held."""

    env: str
    connection: str
    raw_before: EntryPlace
    market_before: EntryPlace
    reached: EntryPlace
    blocks: int


def mapper_of(feed: str) -> Callable[[int], Mapper]:
    """How the tapes of `feed` are read: a mapper for a session."""
    return lambda session: KalshiMapper(feed, session)


def tape_directory(environment: ResolvedEnvironment, connection: str = "") -> Path:
    """The tape of one of the environment's connections, by default of the one it captures with.

    Raises:
        Misconfigured: there is no such tape.
    """
    tapes = environment.directory / TAPES
    directory = tapes / (connection or environment.document.capture.connection)
    if not indexes(directory):
        there = sorted(path.name for path in tapes.iterdir() if path.is_dir()) if tapes.is_dir() else []
        if not there:
            raise Misconfigured(f"{environment.name} has no tape yet", mend=f"ssmd up {environment.name}")
        raise Misconfigured(f"{environment.name} has no tape of {directory.name!r}; there are tapes of {', '.join(there)}")
    return directory


@contextmanager
def held(directory: Path) -> Generator[None]:
    """The tape's lock, as its connector holds it.

    Raises:
        Misconfigured: a connector writes that tape: it fills the streams itself.
    """
    directory.mkdir(parents=True, exist_ok=True)
    handle = os.open(directory / "lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise Misconfigured(
                f"a connector writes the tape in {directory}, and fills the streams from it by itself",
                mend="stop the connector first, or republish another tape",
            ) from error
        yield
    finally:
        os.close(handle)


@contextmanager
def _both_held(directory: Path, target: Path) -> Generator[None]:
    with ExitStack() as stack:
        stack.enter_context(held(directory))
        if target.is_dir() and target.resolve() != directory.resolve():
            stack.enter_context(held(target))
        yield


class _NoFacts:
    """Facts of a tape that is published again are in the journal of its own environment."""

    def offer(self, facts: Iterable[CaptureEvent]) -> None:
        del facts


async def republish(
    directory: Path,
    transport: Transport,
    names: Names,
    make_mapper: Callable[[int], Mapper],
    random: RandomBytes,
    *,
    is_all: bool = False,
) -> Republished:
    """Publish what the streams lack of the tape in `directory`: blocks, records, marks, in order.

    Args:
        names: whose subjects they go to; another environment than the tape's own is fine.
        is_all: publish everything again under new ids, whatever the streams hold (consumers drop repeats).

    Raises:
        Unavailable: the transport does not answer now; later trouble is waited out.
        Malformed: damage on the tape; what is before it is published.
    """
    publisher = OrderedPublisher(transport, *names, random)
    follower = TapeFollower(directory, names, make_mapper, publisher, _NoFacts(), random)
    try:
        before = await publisher.begin()
        if is_all:
            follower.refill(NOWHERE, "asked to")
        follower.drain()
        await follower.run(before)
        await publisher.settle()
    finally:
        await publisher.close()
    return Republished(names.env, names.connection, before.raw, before.market, publisher.acked, follower.blocks)


async def republish_into(
    directory: Path,
    environment: ResolvedEnvironment,
    variables: Mapping[str, str],
    random: RandomBytes,
    *,
    connection: str = "",
    is_all: bool = False,
) -> Republished:
    """`republish` into the streams of a running environment.

    Raises:
        Misconfigured: a connector writes the tape, or the target's tape of that connection.
        Unavailable: the environment does not run.
    """
    feed = environment.document.feed
    names = Names(environment.name, feed, connection or directory.name)
    target = environment.directory / TAPES / names.connection
    if environment.document.transport.backend != "nats":
        raise Unavailable(f"the streams of {environment.name} live in the process that runs it")
    with _both_held(directory, target):
        transport = await open_transport(environment, variables)
        try:
            return await republish(directory, transport, names, mapper_of(feed), random, is_all=is_all)
        finally:
            await transport.close()
