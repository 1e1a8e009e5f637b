"""Each failure, done to real processes, makes the right critical alert fire and no other.

One system on real servers is scraped about twice a second, as Prometheus would, while things are done to it. What was
recorded becomes the series of a promtool test, and goes on for ten minutes as it was at the end: an age that grew as fast
as the clock goes on growing, all else stays.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from tests.conftest import ROOT

from ssmd.clock import SystemClock, date_of
from ssmd.errors import Unavailable
from ssmd.registry.bootstrap import DEMO_ENVIRONMENT, write_registry
from ssmd.schemas.codecs import definition_sha256
from ssmd.settings import Workspace, variables
from ssmd.telemetry.component_metrics import TABLE, is_withheld, row_of
from ssmd.wiring.environment import resolve_environment
from ssmd.wiring.system import LocalSystem

KINDS = tuple(kind for kind in TABLE if kind != "worker")
"""Temporal's worker is no part of the system that is broken here."""
ENVIRONMENT = DEMO_ENVIRONMENT.format(
    capture="  simulator:\n    seed: 3\n    markets: 5\n    rate: 600\n", segment_bytes=1 << 20
)
EVERY_S = 0.4
SETTLED = 3
"""Samples that a failure must be seen in."""
LASTS_S = 600
DEADLINE_S = 90
Sample = dict[str, float]


class Scrape(NamedTuple):
    """All series at a time of the monotonic clock."""

    at_s: float
    series: Sample


class Recording(NamedTuple):
    """Failure -> what was scraped before and while it lasted; and each component's statistics."""

    failures: dict[str, list[Scrape]]
    stats: dict[str, dict[str, Any]]


def series_of(name: str, labels: dict[str, str]) -> str:
    inner = ",".join(f'{label}="{value}"' for label, value in sorted(labels.items()))
    return f"{name}{{{inner}}}"


class Target:
    """Scrapes the components of a system."""

    def __init__(self, system: LocalSystem, http: httpx.AsyncClient) -> None:
        self._system = system
        self._http = http
        self.urls: dict[str, str] = {}
        self.patience_s: dict[str, float] = {}
        """How long a component is waited for that is known not to answer; any other has all the time it needs."""

    async def find(self, kind: str) -> None:
        """Ask where a component shows its metrics now."""
        async with asyncio.timeout(DEADLINE_S):
            while True:
                with suppress(Unavailable):
                    url = (await self._system.health(kind))["stats"]["metrics_url"]
                    if url != self.urls.get(kind):
                        self.urls[kind] = url
                        return
                await asyncio.sleep(0.1)

    async def scrape(self) -> Scrape:
        async def one(kind: str) -> Sample:
            up = f'up{{job="ssmd",component="{kind}"}}'
            try:
                text = (await self._http.get(self.urls[kind], timeout=self.patience_s.get(kind, DEADLINE_S))).text
            except httpx.TransportError:
                return {up: 0}
            found = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
            named = {series_of(one.name, one.labels): one.value for one in found if one.name.startswith("ssmd_")}
            return {up: 1, **named}

        series = await asyncio.gather(*(one(kind) for kind in KINDS))
        return Scrape(time.monotonic(), {name: value for sample in series for name, value in sample.items()})

    async def until(self, is_seen: Callable[[Sample], bool]) -> list[Scrape]:
        """Scrape until a failure has been seen `SETTLED` times in a row."""
        found: list[Scrape] = []
        async with asyncio.timeout(DEADLINE_S):
            while len(found) < SETTLED or not all(is_seen(one.series) for one in found[-SETTLED:]):
                found.append(await self.scrape())
                await asyncio.sleep(EVERY_S)
        return found


def value_of(sample: Sample, metric: str) -> float:
    return next((value for name, value in sample.items() if name.startswith(f"{metric}{{")), -1)


async def recorded(root: Path) -> Recording:
    write_registry(root, {"demo": ENVIRONMENT}, definition_sha256())
    environment = resolve_environment(Workspace(root), "demo", date_of(SystemClock().now_ns()))
    given = {name: value for name, value in variables().items() if name != "SSMD_MONITOR"}
    failures: dict[str, list[Scrape]] = {}
    async with (
        httpx.AsyncClient(timeout=DEADLINE_S) as http,
        LocalSystem(environment, given, SystemClock(), lambda _: None) as system,
    ):
        target = Target(system, http)
        await system.until_capturing()
        for kind in KINDS:
            await target.find(kind)
        before = failures["none"] = await target.until(
            lambda now: (
                0 <= value_of(now, "ssmd_connector_frame_age_seconds") < 2 and value_of(now, "ssmd_projector_gaps_open") == 0
            )
        )
        stats = {kind: (await system.health(kind))["stats"] for kind in KINDS}
        pids = {name: mark.pid for name, mark in system.supervisor.processes().items()}

        os.kill(pids["projector"], signal.SIGSTOP)
        target.patience_s["projector"] = 0.5
        try:
            stopped = await target.until(lambda now: now['up{job="ssmd",component="projector"}'] == 0)
        finally:
            os.kill(pids["projector"], signal.SIGCONT)
            target.patience_s.clear()
        failures["projector stopped"] = before + stopped

        faults = system.environment.endpoint.rest.replace("/trade-api/v2", "/simulator/faults")
        (await http.post(faults, json={"kind": "stall"})).raise_for_status()
        stalled = await target.until(lambda now: value_of(now, "ssmd_connector_frame_age_seconds") > 2)
        failures["venue stalled"] = before + stalled
        (await http.post(f"{faults}/clear")).raise_for_status()

        # Started again it finds room for little more: what a disk that fills up comes to.
        size = sum(path.stat().st_size for path in (environment.directory / "tape").rglob("*.tape"))
        path = root / "exchanges" / "environments" / "demo.yaml"
        path.write_text(f"{path.read_text()}tape:\n  bytes_max: {max(1 << 20, size + (64 << 10))}\n")
        os.kill(pids["connector"], signal.SIGKILL)
        # Its next life shows its metrics elsewhere.
        killed = await target.until(lambda now: now['up{job="ssmd",component="connector"}'] == 0)
        failures["connector killed"] = before + killed

        await target.find("connector")
        full = await target.until(
            lambda now: (
                value_of(now, "ssmd_connector_tape_bytes") > 0.9 * value_of(now, "ssmd_connector_tape_bytes_max")
                and value_of(now, "ssmd_connector_frame_age_seconds") > 1
            )
        )
        failures["disk full"] = before + full
        assert await system.supervisor.stop("connector", grace_s=DEADLINE_S) == 0
    return Recording(failures, stats)


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    return asyncio.run(recorded(tmp_path_factory.mktemp("alerts")))


def notation(name: str, scrapes: list[Scrape]) -> str:
    """The values of a series for promtool: one a second, as scraped, then as the module says."""
    values = [one.series.get(name) for one in scrapes]
    text = ["_" if value is None else repr(float(value)) for value in values]
    last = values[-1]
    if last is None:
        # A scrape that fails ends the series, as Prometheus would.
        gone = max(number for number, value in enumerate(values) if value is not None) + 1
        return " ".join([*text[:gone], "stale", *text[gone + 1 :]])
    grew = last - (values[-SETTLED] or 0)
    took_s = scrapes[-1].at_s - scrapes[-SETTLED].at_s
    is_age = name.partition("{")[0].endswith(("_age_seconds", "_lag_seconds", "_overdue_seconds"))
    step = 1 if is_age and grew > took_s / 2 else 0
    return " ".join([*text, f"{last + step!r}+{step}x{LASTS_S}"])


def firing(tmp_path: Path, promtool: str, scrapes: list[Scrape], expected: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Have promtool say whether just these critical alerts (alert -> component) fire in the end."""
    names = sorted({name for one in scrapes for name in one.series})
    (tmp_path / "alerts.yaml").write_bytes((ROOT / "deploy" / "monitoring" / "alerts.yaml").read_bytes())
    test = {
        "interval": "1s",
        "input_series": [{"series": name, "values": notation(name, scrapes)} for name in names],
        "promql_expr_test": [
            {
                "eval_time": f"{LASTS_S - 15}s",
                "expr": 'count by (alertname, component) (ALERTS{alertstate="firing", severity="critical"})',
                "exp_samples": [
                    {"labels": f'{{alertname="{alert}", component="{component}"}}', "value": 1}
                    for alert, component in expected.items()
                ],
            }
        ],
    }
    whole = {"rule_files": ["alerts.yaml"], "evaluation_interval": "15s", "tests": [test]}
    (tmp_path / "recorded.yaml").write_text(yaml.safe_dump(whole, width=1 << 20))
    command = [promtool, "test", "rules", str(tmp_path / "recorded.yaml")]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.needs_tool("promtool")
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("failure", "expected"),
    [
        ("none", {}),
        ("projector stopped", {"SsmdComponentDown": "projector"}),
        ("venue stalled", {"SsmdNoData": "connector"}),
        ("connector killed", {"SsmdConnectorDown": "connector"}),
        ("disk full", {"SsmdTapeFull": "connector"}),
    ],
)
def test_the_right_alert_fires_and_no_other_critical_one(
    recording: Recording, tool: Callable[[str], str], tmp_path: Path, failure: str, expected: dict[str, str]
) -> None:
    done = firing(tmp_path, tool("promtool"), recording.failures[failure], expected)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.timeout(300)
def test_every_statistic_of_every_component_is_in_the_table_and_every_row_is_told(recording: Recording) -> None:
    # Without a key that expires there is nothing to tell of one.
    absent = {"key_expires_ms_*"}
    for kind, stats in recording.stats.items():
        placed = {stat: row_of(kind, stat) for stat in stats}
        unknown = [stat for stat, row in placed.items() if row is None and not is_withheld(kind, stat)]
        assert unknown == [], f"{kind}: put them in telemetry.component_metrics (TABLE, or NOT_EXPORTED with a reason)"
        told = {row[0].stat for row in placed.values() if row is not None}
        assert {row.stat for row in TABLE[kind]} - told <= absent, kind
