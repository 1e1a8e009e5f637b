"""Control subjects: how components are asked, and how they answer, over the transport server.

A component is a NATS service (`nats.micro`), so PING, INFO and STATS of the NATS service API come with it. Its verbs
answer JSON: {"ok": bool, "reason": str, ...}.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any, Final, NamedTuple

import msgspec
import nats.errors
from nats import micro
from nats.aio.msg import Msg
from nats.micro.request import Request

from ssmd.errors import SsmdError, Unavailable
from ssmd.identifiers import RandomBytes
from ssmd.streams import subjects
from ssmd.streams.backoff import backoff_s
from ssmd.streams.connection import Connection

Verb = Callable[[], Awaitable[Mapping[str, Any]]]
TIMEOUT_S: Final = 5.0
SERVICES_MAX: Final = 1_000
"""Answers to a roll call beyond that are not read."""
_NAME_PREFIX: Final = "ssmd-"


class RunningService(NamedTuple):
    """Who answered a roll call. `version`: of ssmd, as that process runs it."""

    component: str
    instance: str
    version: str


class ControlServer:
    """Answers one component's verbs until cancelled; a lost connection is made again.

    Args:
        verbs: by name; what they return is the answer, an SsmdError becomes {"ok": false, "reason": ...}.
        version: of ssmd, shown by the service API.
    """

    def __init__(
        self,
        url: str,
        env: str,
        component: str,
        instance: str,
        verbs: Mapping[str, Verb],
        *,
        version: str,
        random: RandomBytes,
    ) -> None:
        self._url = url
        self._names = (env, component, instance)
        self._verbs = verbs
        self._version = version
        self._random = random

    async def run(self) -> None:
        """Serve until cancelled."""
        attempt = 0
        while True:
            try:
                await self._serve()
                attempt = 0
            except Unavailable:
                attempt += 1
            await asyncio.sleep(backoff_s(max(1, attempt), self._random, max_s=2.0))

    async def _serve(self) -> None:
        env, component, instance = self._names
        connection = await Connection.open(self._url, name=f"ssmd {env} {component} control", timeout_s=TIMEOUT_S)
        try:
            service = await micro.add_service(
                connection.client,
                name=f"{_NAME_PREFIX}{component}",
                version=self._version,
                metadata={"env": env, "instance": instance},
            )
            for verb, handler in self._verbs.items():
                subject = subjects.service(env, component, instance, verb)
                await service.add_endpoint(name=verb, subject=subject, handler=_answering(handler))
            await connection.lost.wait()
        except nats.errors.Error as error:
            raise Unavailable(f"cannot serve control subjects at {connection.url}: {error}") from error
        finally:
            await connection.abandon()


def _answering(handler: Verb) -> Callable[[Request], Awaitable[None]]:
    async def answer(request: Request) -> None:
        try:
            told: Mapping[str, Any] = await handler()
        except SsmdError as error:
            told = {"ok": False, "reason": error.message}
        await request.respond(msgspec.json.encode(told))

    return answer


class ControlClient:
    """Asks components. Made by `open`."""

    def __init__(self, connection: Connection, env: str) -> None:
        self._connection = connection
        self._env = env

    @classmethod
    async def open(cls, url: str, env: str) -> ControlClient:
        """Connect. Raises Unavailable."""
        return cls(await Connection.open(url, name=f"ssmd {env} control client", timeout_s=TIMEOUT_S), env)

    @property
    def is_open(self) -> bool:
        """Whether anything can be asked; a client whose connection is lost is of no more use."""
        return self._connection.is_open

    async def request(self, component: str, instance: str, verb: str, timeout_s: float = TIMEOUT_S) -> dict[str, Any]:
        """A component's answer.

        Raises:
            Unavailable: the component does not run, or did not answer within `timeout_s`.
        """
        subject = subjects.service(self._env, component, instance, verb)
        msg = await self._connection.request(subject, b"", timeout_s=timeout_s)
        answer: dict[str, Any] = msgspec.json.decode(msg.data)
        return answer

    async def roll_call(self, wait_s: float, expected: int = SERVICES_MAX) -> list[RunningService]:
        """The environment's components that answer within `wait_s`, by name; sooner when `expected` of them have.

        Raises:
            Unavailable: the connection is lost.
        """
        found: set[RunningService] = set()
        are_there = asyncio.Event()

        async def take(msg: Msg) -> None:
            service = _service_of(msg.data, self._env)
            if service is not None and len(found) < SERVICES_MAX:
                found.add(service)
            if len(found) >= expected:
                are_there.set()

        inbox = self._connection.new_inbox()
        answers = await self._connection.subscribe(inbox, take)
        try:
            await self._connection.publish("$SRV.INFO", b"", reply=inbox)
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await are_there.wait()
        finally:
            with suppress(nats.errors.Error):
                await answers.unsubscribe()
        return sorted(found)

    async def close(self) -> None:
        await self._connection.close()


class _Info(msgspec.Struct):
    """What of a service's INFO is looked at (NATS ADR-32)."""

    name: str
    version: str = ""
    metadata: dict[str, str] | None = None


def _service_of(data: bytes, env: str) -> RunningService | None:
    """None: another environment's, or no component of ssmd."""
    try:
        info = msgspec.json.decode(data, type=_Info)
    except msgspec.DecodeError:
        return None
    metadata = info.metadata or {}
    if not info.name.startswith(_NAME_PREFIX) or metadata.get("env") != env:
        return None
    return RunningService(info.name.removeprefix(_NAME_PREFIX), metadata.get("instance", ""), info.version)
