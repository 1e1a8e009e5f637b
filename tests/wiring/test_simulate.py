"""Settings of a simulator from a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from ssmd.errors import Misconfigured
from ssmd.exchanges.kalshi.simulated.market_orders import VenueOrder
from ssmd.services.simulator.config import FaultOrder
from ssmd.wiring.simulate import read_settings


def test_a_file_sets_any_setting_faults_and_orders_too(tmp_path: Path) -> None:
    path = tmp_path / "venue.json"
    path.write_text(
        '{"markets": 3, "preset": "peak", "faults": [{"kind": "drop-frame", "after_frames": 9}],'
        ' "orders": [{"kind": "pause-trading", "at_s": 60, "for_s": 5}]}'
    )
    found = read_settings(path)
    assert (found.markets, found.preset, found.seed) == (3, "peak", 1)
    assert found.faults == (FaultOrder(kind="drop-frame", after_frames=9),)
    assert found.orders == (VenueOrder(kind="pause-trading", at_s=60, for_s=5),)


@pytest.mark.parametrize(
    "text", ['{"colour": 1}', '{"faults": [{"kind": "earthquake"}]}', "no", '{"orders": [{"kind": "list", "count": 0}]}']
)
def test_what_is_no_setting_is_refused_with_its_name(tmp_path: Path, text: str) -> None:
    path = tmp_path / "venue.json"
    path.write_text(text)
    with pytest.raises(Misconfigured, match=r"venue\.json"):
        read_settings(path)
    with pytest.raises(Misconfigured, match="cannot be read"):
        read_settings(tmp_path / "absent.json")
