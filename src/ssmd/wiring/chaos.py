"""`ssmd chaos run`: a capture of a seeded market under kill -9, compared with what an undisturbed run would hold.

A workspace of its own, real processes, real servers. Waves of kills by a seed, at named crash points and at random
instants; then the day is ended and every promise checked: what the tape holds is in the archive byte for byte, in the
journal fact for fact, every hole on the venue's side has a name, and cache and journal give the same answers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from ssmd import crash_points
from ssmd.application.handler import Application
from ssmd.archive.storage_s3 import S3Access
from ssmd.clock import Clock, date_of
from ssmd.domain.catalogue import CATALOGUE
from ssmd.errors import Misconfigured
from ssmd.identifiers import RandomBytes
from ssmd.projections import queries
from ssmd.projections.views import Views, fold_views, freshest_views
from ssmd.registry.bootstrap import write_registry
from ssmd.schemas.codecs import definition_sha256
from ssmd.services import armed_crash
from ssmd.services.chaos import checks
from ssmd.services.chaos.checks import Check
from ssmd.services.chaos.plan import AT_START, Strike, Wave
from ssmd.services.chaos.reference import contents, reference
from ssmd.services.connector.tape_follower import Names
from ssmd.services.supervisor import RestartPolicy
from ssmd.settings import Workspace
from ssmd.streams.tape_summary import summarize
from ssmd.wiring.backends import open_journal, open_rows_store, open_storage
from ssmd.wiring.environment import ResolvedEnvironment, resolve_environment
from ssmd.wiring.system import LocalSystem, race_failure
from ssmd.wiring.tape import mapper_of, tape_directory
from ssmd.wiring.trading_day import day_procedure, end_day
from ssmd.wiring.up import begin_day

ENV: Final = "chaos"
MARKER: Final = "ssmd-chaos"
HIT_WITHIN_S: Final = 40.0
BACK_WITHIN_S: Final = 60.0
CALM_S: Final = 0.5
"""Between two waves: everything runs undisturbed."""
POLICY: Final = RestartPolicy(limit=1_000_000, first_s=0.05, max_s=0.1)

ENVIRONMENT: Final = """\
keys:
  kalshi:
    type: kalshi-api-key
    fields: [api_key, private_key]
    source: generated
name: chaos
feed: kalshi
schema: market:1
capture:
  endpoint: simulator
  key: $key:kalshi
  simulator:
    seed: {seed}
    markets: {markets}
    rate: {rate}
archive:
  segment_bytes: 65536
  idle_seconds: 0.5
gateway:
  port: 0
"""
"""Small segments, so that every step of a seal comes often; the tape stays whole, because all is compared with it."""


class StrikeReport(msgspec.Struct, frozen=True):
    """One kill that was made. `back_s`: how long until the target answered again."""

    wave: int
    target: str
    how: str
    point: str
    back_s: float


class ChaosReport(msgspec.Struct, frozen=True):
    """What a run came to."""

    seed: int
    workspace: str
    strikes: tuple[StrikeReport, ...]
    checks: tuple[Check, ...]
    entries: int
    sessions: int

    @property
    def is_ok(self) -> bool:
        return all(check.is_ok for check in self.checks)


BUCKET_KEY: Final = """\
keys:
  bucket:
    type: opaque
    fields: [access_key, secret_key]
"""
STORAGE: Final = """\
storage:
  backend: s3
  bucket: {bucket}
  url: {url}
  region: {region}
  prefix: "{prefix}"
  key: $key:bucket
"""


@dataclass
class Chaos:
    """One run.

    Args:
        seed: of the market; the plan has its own.
        say: told each step in a line for people.
        bucket: where the archive is kept, None = in the workspace. `variables` must hold its key (SSMD_BUCKET_ACCESS_KEY
            and SSMD_BUCKET_SECRET_KEY).
    """

    variables: Mapping[str, str]
    clock: Clock
    random: RandomBytes
    say: Callable[[str], None]
    seed: int = 1
    markets: int = 8
    rate: int = 400
    bucket: S3Access | None = None

    async def run(self, directory: Path, waves: Sequence[Wave]) -> ChaosReport:
        """Run it in `directory`, which must be empty or not there.

        Raises:
            Misconfigured: the directory cannot be used.
            Unavailable: a part of the system did not come back.
        """
        environment = await asyncio.to_thread(self._prepare, directory)
        armed = environment.workspace.root / "crash-points"
        keys = {name: value for name, value in self.variables.items() if name.startswith("SSMD_BUCKET_")}
        child_variables = {"SSMD_CRASH_POINTS": str(armed), **keys}
        found: list[Check] = []
        system = LocalSystem(environment, self.variables, self.clock, _quiet, policy=POLICY, child_variables=child_variables)
        async with system:
            work = asyncio.create_task(self._work(system, armed, waves, found))
            await race_failure(system, work)
            strikes = await work
        tape = tape_directory(environment)
        summary = await asyncio.to_thread(summarize, tape)
        found = [checks.check_tape(summary), *await self._check_archive(environment, tape), *found]
        entries = sum(one.frames + one.commands + one.facts for one in summary.sessions)
        return ChaosReport(self.seed, str(directory), tuple(strikes), tuple(found), entries, len(summary.sessions))

    def _prepare(self, directory: Path) -> ResolvedEnvironment:
        workspace = Workspace(directory.resolve())
        try:
            workspace.root.mkdir(parents=True, exist_ok=True)
            if any(workspace.root.iterdir()):
                raise Misconfigured(f"{directory} is not empty", mend="name a directory that is not there yet")
            (workspace.root / "crash-points").mkdir()
        except OSError as error:
            raise Misconfigured(f"cannot write to {directory}: {error.strerror}", mend="name another directory") from error
        text = ENVIRONMENT.format(seed=self.seed, markets=self.markets, rate=self.rate)
        if self.bucket is not None:
            text = BUCKET_KEY + text.removeprefix("keys:\n") + STORAGE.format(**self.bucket._asdict())
        write_registry(workspace.root, {ENV: text}, definition_sha256())
        return resolve_environment(workspace, ENV, date_of(self.clock.now_ns()))

    # The kills

    async def _work(self, system: LocalSystem, armed: Path, waves: Sequence[Wave], found: list[Check]) -> list[StrikeReport]:
        date = await begin_day(system.environment, self.variables, self.clock, self.random, _quiet)
        strikes: list[StrikeReport] = []
        for number, wave in enumerate(waves, 1):
            self.say(f"wave {number} of {len(waves)}: {', '.join(strike.point or strike.target for strike in wave)}")
            done = await asyncio.gather(*(self._strike(system, armed, number, strike) for strike in wave))
            strikes += done
            await system.until_capturing()
            await asyncio.sleep(CALM_S)
        self.say("stopping the connector and ending the day")
        await system.supervisor.stop("connector")
        async with day_procedure(
            system.environment, self.variables, clock=self.clock, random=self.random, actor="chaos", say=_quiet
        ) as procedure:
            await end_day(procedure, date, reason="chaos is over")
        self.say("checking")
        hits = {target: armed_crash.hits(armed, target) for target in crash_points.OF_COMPONENT}
        found.append(checks.check_hits([strike for wave in waves for strike in wave], hits))
        found += await self._check_journal(system.environment, date)
        return strikes

    async def _strike(self, system: LocalSystem, armed: Path, wave: int, strike: Strike) -> StrikeReport:
        supervisor = system.supervisor
        if strike.point:
            before = len(armed_crash.hits(armed, strike.target))
            armed_crash.arm(armed, strike.target, strike.point, strike.nth)
            if strike.point in AT_START:
                supervisor.kill(strike.target)
            await self._until_hit(armed, strike, before)
        else:
            await asyncio.sleep(strike.after_s)
            supervisor.kill(strike.target)
        began_ns = self.clock.monotonic_ns()
        # The supervisor looks every few hundredths of a second whether a child has ended.
        await asyncio.sleep(0.1)
        await supervisor.wait_ready(strike.target, deadline_s=BACK_WITHIN_S)
        back_s = (self.clock.monotonic_ns() - began_ns) / 1e9
        return StrikeReport(wave, strike.target, strike.how, strike.point, round(back_s, 3))

    async def _until_hit(self, armed: Path, strike: Strike, before: int) -> None:
        """Wait for the kill; a point that is not reached in time is disarmed, and told by the verdict."""
        deadline_ns = self.clock.monotonic_ns() + int(HIT_WITHIN_S * 1e9)
        while len(armed_crash.hits(armed, strike.target)) == before:
            if self.clock.monotonic_ns() > deadline_ns:
                armed_crash.disarm(armed, strike.target)
                return
            await asyncio.sleep(0.02)

    # The checks

    async def _check_archive(self, environment: ResolvedEnvironment, tape: Path) -> list[Check]:
        names = Names(environment.name, environment.document.feed, environment.document.capture.connection)
        expected = await reference(
            tape,
            names,
            mapper_of(names.feed),
            clock=self.clock,
            random=self.random,
            spool=environment.directory / "spool" / "reference",
            settings=environment.document.archive,
            zone=environment.document.timezone,
        )
        storage = open_storage(environment, self.variables)
        try:
            return checks.check_archive(expected, await contents(storage))
        finally:
            await storage.close()

    async def _check_journal(self, environment: ResolvedEnvironment, date: str) -> list[Check]:
        feed, connection = environment.document.feed, environment.document.capture.connection
        journal = await open_journal(environment, self.variables)
        store = open_rows_store(environment, self.variables, self.random)
        storage = open_storage(environment, self.variables)
        try:
            facts = await checks.journaled_facts(journal, feed, connection)
            tape = tape_directory(environment)
            cached, folded = await freshest_views(store, journal), await fold_views(journal, None)
            is_equal = await _answers(cached, feed) == await _answers(folded, feed)
            return [
                checks.check_facts(tape, mapper_of(feed), facts),
                checks.check_gaps(facts),
                await checks.check_seals(journal, storage),
                await checks.state_of_day(Application(journal, CATALOGUE, self.clock, self.random), date),
                Check("cache and journal give the same answers", is_equal, f"from the {cached.source}"),
            ]
        finally:
            await storage.close()
            await store.close()
            await journal.close()


async def _answers(views: Views, feed: str) -> bytes:
    days = await queries.days(views)
    history = [await queries.day_history(views, day.date) for day in days]
    return msgspec.json.encode([history, await queries.inventory(views, feed), await queries.gaps(views, feed, "")])


def _quiet(_line: str) -> None:
    return
