"""Bounds of the hub."""

from __future__ import annotations

from typing import Final, NamedTuple

from ssmd.gateway.client_queue import QueueLimits


class HubLimits(NamedTuple):
    """Bounds.

    Attributes:
        coalesce_s: time between two frames of a client at least: so long a message may wait for others to share its frame.
        close_grace_s: how long a client that is being closed may take to read its last frames before it is cut off.
    """

    clients_max: int = 2_000
    connections_per_key_max: int = 100
    tickers_per_client_max: int = 10_000
    coalesce_s: float = 0.004
    close_grace_s: float = 10.0
    queue: QueueLimits = QueueLimits()


DEFAULT_LIMITS: Final = HubLimits()
