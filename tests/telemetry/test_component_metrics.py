"""The table of metrics: whole names by Prometheus's rules, its page up to date, and what it makes of a component's health."""

from __future__ import annotations

import re

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest
from tests.conftest import ROOT

from ssmd.telemetry import component_metrics
from ssmd.telemetry.component_metrics import EVERYWHERE, NOT_EXPORTED, TABLE, HealthNow, Row
from ssmd.telemetry.metrics import HealthCollector
from ssmd.wiring.components import KINDS


def shown(now: HealthNow) -> list[str]:
    registry = CollectorRegistry()
    registry.register(HealthCollector(lambda: now))
    return [line for line in generate_latest(registry).decode().splitlines() if not line.startswith("#")]


def test_the_page_is_made_of_the_table() -> None:
    page = (ROOT / "docs" / "reference" / "metrics.md").read_text()
    assert page == component_metrics.reference(), "python -m ssmd.telemetry.component_metrics > docs/reference/metrics.md"


@pytest.mark.parametrize("component", ["", *TABLE])
def test_names_are_prometheus_names_and_none_is_there_twice(component: str) -> None:
    rows = TABLE[component] if component else EVERYWHERE
    names = component_metrics.names_of(component)
    assert len(set(names)) == len(names)
    for row, name in zip(rows, names, strict=True):
        assert re.fullmatch(r"ssmd(_[a-z][a-z0-9]*){2,}", name), name
        assert name.endswith("_total") == (row.type == "counter"), name
        # A statistic in thousandths of a second is a metric in seconds.
        assert row.stat.removesuffix("_*").endswith("_ms") == (row.per == 1000), name
        assert row.stat.endswith("*") == bool(row.label), name
        assert row.per == 1 or name.endswith("_seconds"), name


def test_every_component_is_in_the_table() -> None:
    assert set(TABLE) == set(KINDS)


def test_nothing_is_both_exported_and_withheld() -> None:
    assert NOT_EXPORTED.keys() == TABLE.keys()
    for component, withheld in NOT_EXPORTED.items():
        assert not withheld.keys() & {row.stat for row in TABLE[component]}


def test_what_stands_for_many_becomes_a_label_and_an_exact_name_goes_first() -> None:
    stats: dict[str, int | str] = {"lag": 3, "lag_days": 2, "lag_gaps": 0, "day_status_active": 1, "key_expires_ms_k.a": -1500}
    assert shown(HealthNow("projector", "main", "prod", ok=True, stats={**stats, "standing_by": 1, "unheard_of": 5})) == [
        'ssmd_component_up{component="projector",env="prod",member="main"} 1.0',
        'ssmd_component_ok{component="projector",env="prod",member="main"} 1.0',
        'ssmd_component_standby{component="projector",env="prod",member="main"} 1.0',
        'ssmd_projector_lag_events{component="projector",env="prod",member="main"} 3.0',
        'ssmd_projector_view_lag_events{component="projector",env="prod",member="main",view="days"} 2.0',
        'ssmd_projector_view_lag_events{component="projector",env="prod",member="main",view="gaps"} 0.0',
        'ssmd_projector_day_status{component="projector",env="prod",member="main",status="active"} 1.0',
        'ssmd_projector_key_expires_in_seconds{component="projector",env="prod",key="k.a",member="main"} -1.5',
    ]


def test_text_is_no_metric() -> None:
    told = shown(HealthNow("raw-archiver", "main-2", "e", ok=False, stats={"stands_by_for": "main", "stream_seq": "x"}))
    assert [line.partition("{")[0] for line in told] == ["ssmd_component_up", "ssmd_component_ok", "ssmd_component_standby"]
    assert told[2].endswith(" 1.0")


def test_a_row_knows_its_whole_name() -> None:
    assert Row("sealed", "segments_sealed", "counter", "").metric("raw-archiver") == "ssmd_raw_archiver_segments_sealed_total"
