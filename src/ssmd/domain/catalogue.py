"""Every aggregate of ssmd: the one list that readers of the journal decode with."""

from __future__ import annotations

from ssmd.domain import archive, capture, trading_day
from ssmd.domain.decider import Catalogue

CATALOGUE = Catalogue([trading_day.DECIDER, capture.DECIDER, archive.DECIDER])
