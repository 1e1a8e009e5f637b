"""A component as Prometheus and Kubernetes see it: /metrics and /healthz, at an address that its health tells."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from typing import Any, Final, NamedTuple

from ssmd.errors import Misconfigured
from ssmd.services.component import Component, Health, Questioned
from ssmd.telemetry.component_metrics import HealthNow
from ssmd.telemetry.metrics import HealthCollector, Metrics, Verdict, serve_metrics
from ssmd.telemetry.structured import structlog
from ssmd.wiring.environment import ResolvedEnvironment

VARIABLE: Final = "SSMD_MONITOR"
DEFAULT: Final = "127.0.0.1:0"
_RETAINING: Final = frozenset({"raw-archiver", "normalized-archiver"})


class Address(NamedTuple):
    """Where to listen; port 0 = any free one."""

    host: str
    port: int


def address_of(given: Mapping[str, str]) -> Address:
    """What SSMD_MONITOR says.

    Raises:
        Misconfigured: it is no HOST:PORT.
    """
    address = given.get(VARIABLE, "") or DEFAULT
    host, colon, port = address.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise Misconfigured(f"{VARIABLE} is {address!r}; expected HOST:PORT", mend=f"export {VARIABLE}=127.0.0.1:9090")
    return Address(host.removeprefix("[").removesuffix("]"), int(port))


class MonitoredComponent:
    """`component`, whose health also tells what the process knows of it (`more`)."""

    def __init__(self, component: Component, more: Mapping[str, int | str]) -> None:
        self.name = component.name
        self.instance = component.instance
        self._component = component
        self._more = more

    async def run(self) -> None:
        await self._component.run()

    async def stop(self) -> None:
        await self._component.stop()

    async def flush(self) -> None:
        await self._component.flush()

    def health(self) -> Health:
        health = self._component.health()
        return Health(health.ok, health.reason, {**health.stats, **self._more})

    def questions(self) -> Mapping[str, Callable[[bytes], Awaitable[Mapping[str, Any]]]]:
        return self._component.questions() if isinstance(self._component, Questioned) else {}


async def monitored(
    component: Component, env: str, more: Mapping[str, int | str], address: Address, stack: AsyncExitStack
) -> Component:
    """Serve /metrics and /healthz of `component` until the stack is closed.

    Raises:
        Misconfigured: the address is taken or not ours to use.
    """
    metrics = Metrics(component.name)

    def now() -> HealthNow:
        health = watched.health()
        return HealthNow(component.name, component.instance, env, health.ok, health.stats)

    def verdict() -> Verdict:
        health = component.health()
        return Verdict(health.ok, health.reason)

    known = dict(more)
    watched = MonitoredComponent(component, known)
    metrics.registry.register(HealthCollector(now))
    server = await serve_metrics(metrics, verdict, host=address.host, port=address.port)
    stack.push_async_callback(server.close)
    host = f"[{address.host}]" if ":" in address.host else address.host
    known["metrics_url"] = f"http://{host}:{server.port}/metrics"
    structlog.get_logger(component.name).info("monitored", url=known["metrics_url"])
    return watched


def known_of(kind: str, environment: ResolvedEnvironment) -> dict[str, int | str]:
    """What the environment says of a component that belongs among its figures."""
    if kind not in _RETAINING:
        return {}
    return {"retention_ms": environment.document.transport.max_age_hours * 3_600_000}
