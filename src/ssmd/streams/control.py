"""Control subjects: how components are asked, and how they answer, over the transport server.

A component is a NATS service (`nats.micro`), so PING, INFO and STATS of the NATS service API come with it. Its verbs
answer JSON: {"ok": bool, "reason": str, ...}; where an error is the answer, "kind" is its class, "rule" what refused.
What is done for them belongs to the asker's request (`telemetry.request`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import nullcontext, suppress
from typing import Any, Final, NamedTuple

import msgspec

from ssmd.errors import Rejected, SsmdError, Unavailable
from ssmd.identifiers import RandomBytes
from ssmd.streams import subjects
from ssmd.streams.backoff import backoff_s
from ssmd.streams.connection import Connection
from ssmd.streams.nats_py import Asked, Msg, micro, nats
from ssmd.telemetry import request, tracing
from ssmd.telemetry.structured import structlog

Verb = Callable[[], Awaitable[Mapping[str, Any]]]
Question = Callable[[bytes], Awaitable[Mapping[str, Any]]]
"""A verb that is told something (JSON)."""
TIMEOUT_S: Final = 5.0
SERVICES_MAX: Final = 1_000
"""Answers to a roll call beyond that are not read."""
_NAME_PREFIX: Final = "ssmd-"
_LOOKS: Final = frozenset({"health"})
"""Verbs that change nothing, and are asked all the time: neither logged nor traced."""


class RunningService(NamedTuple):
    """Who answered a roll call. `version`: of ssmd, as that process runs it."""

    component: str
    instance: str
    version: str


class ControlServer:
    """Answers one component's verbs until cancelled; a lost connection is made again.

    Args:
        verbs: by name; what they return is the answer, an SsmdError becomes {"ok": false, "reason": ...}.
        questions: the same, of those that are told something.
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
        questions: Mapping[str, Question] | None = None,
    ) -> None:
        self._url = url
        self._names = (env, component, instance)
        self._handlers = {**{name: _untold(verb) for name, verb in verbs.items()}, **(questions or {})}
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
            for verb, handler in self._handlers.items():
                subject = subjects.service(env, component, instance, verb)
                await service.add_endpoint(name=verb, subject=subject, handler=_answering(verb, handler))
            await connection.lost.wait()
        except nats.errors.Error as error:
            raise Unavailable(f"cannot serve control subjects at {connection.url}: {error}") from error
        finally:
            await connection.abandon()


def _untold(verb: Verb) -> Question:
    async def answered(_payload: bytes) -> Mapping[str, Any]:
        return await verb()

    return answered


def _answering(verb: str, handler: Question) -> Callable[[Asked], Awaitable[None]]:
    async def told_by(payload: bytes) -> Mapping[str, Any]:
        try:
            return await handler(payload)
        except SsmdError as error:
            rule = error.rule if isinstance(error, Rejected) else ""
            return {"ok": False, "reason": error.message, "kind": type(error).__name__, "rule": rule, "mend": error.mend}
        except Exception as error:  # noqa: BLE001 - the service API would send its text to the asker, and nobody would log it
            structlog.get_logger("control").exception("unforeseen", verb=verb)
            kind = type(error).__name__
            return {"ok": False, "reason": f"unforeseen: {kind}", "kind": kind, "rule": "", "mend": "see its log"}

    async def answer(asked: Asked) -> None:
        if verb in _LOOKS:
            await asked.respond(msgspec.json.encode(await told_by(asked.data)))
            return
        headers = asked.headers or {}
        with request.begun(request.of_headers(headers)), tracing.span(f"control {verb}", headers):
            told = await told_by(asked.data)
            structlog.get_logger("control").info("asked", verb=verb, ok=bool(told.get("ok")), reason=told.get("reason", ""))
            await asked.respond(msgspec.json.encode(told))

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

    async def request(
        self, component: str, instance: str, verb: str, timeout_s: float = TIMEOUT_S, payload: bytes = b""
    ) -> dict[str, Any]:
        """A component's answer; `payload` is what a question tells it.

        Raises:
            Unavailable: the component does not run, or did not answer within `timeout_s`, or not as one of ours does.
        """
        subject = subjects.service(self._env, component, instance, verb)
        with nullcontext() if verb in _LOOKS else tracing.span(f"ask {verb}", component=component, instance=instance):
            msg = await self._connection.request(subject, payload, timeout_s=timeout_s, headers=request.headers())
        try:
            return msgspec.json.decode(msg.data, type=dict[str, Any])
        except msgspec.DecodeError:
            raise Unavailable(
                f"{component} {instance} gave no answer to {verb} that could be read", mend="see its log"
            ) from None

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
