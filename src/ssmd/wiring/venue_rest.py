"""The REST interface of an environment's venue, signed with the environment's key where it has one."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager

from ssmd.clock import Clock
from ssmd.errors import Misconfigured
from ssmd.exchanges.kalshi.signing import headers
from ssmd.identifiers import RandomBytes
from ssmd.services.connector.kalshi_venue import VenueKey
from ssmd.services.kalshi_rest.client import KalshiRest, RestSettings, Signer
from ssmd.wiring.environment import ResolvedEnvironment
from ssmd.wiring.venue_key import venue_key


@asynccontextmanager
async def open_rest(
    environment: ResolvedEnvironment,
    variables: Mapping[str, str],
    clock: Clock,
    random: RandomBytes,
    settings: RestSettings = RestSettings(),  # noqa: B008 - immutable
) -> AsyncGenerator[KalshiRest]:
    """The interface, nothing asked yet.

    Raises:
        Misconfigured: the feed has none, or the key has no value. Unavailable: it is the simulator, and none runs.
    """
    url = environment.endpoint.rest
    if not url:
        raise Misconfigured(f"the feed of {environment.name} has no REST endpoint", mend="ssmd feed show")
    key = venue_key(environment.capture_key(variables, random))
    async with KalshiRest(url, _signer_of(key, clock), clock, random, settings) as client:
        yield client


def _signer_of(key: VenueKey, clock: Clock) -> Signer | None:
    """Signs calls; None where there is no key."""
    private_key = key.private_key
    if private_key is None:
        return None
    return lambda method, path: headers(key.key_id, private_key, clock.now_ns() // 1_000_000, method, path)
