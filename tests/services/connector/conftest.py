"""A connector's own second is shortened: what a test orders, it follows at once."""

import pytest

from ssmd.services.connector import group


@pytest.fixture(autouse=True)
def _follows_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group, "FOLLOW_S", 0.1)
