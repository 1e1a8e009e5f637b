"""The key a venue's requests are signed with, watched while the process runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack

from ssmd.exchanges.kalshi.signing import load_private_key
from ssmd.identifiers import RandomBytes
from ssmd.keys.secret import Secret
from ssmd.registry.integrity import KEY_REFERENCE
from ssmd.services.connector.kalshi_venue import VenueKey
from ssmd.services.key_watch import SETTLE_S, WATCH_S, KeyWatch
from ssmd.wiring.environment import ResolvedEnvironment

Fields = Mapping[str, Secret]


def venue_key(fields: Fields) -> VenueKey:
    """Fields that were checked as a key to sign with; of none, one that signs nothing."""
    if not fields:
        return VenueKey("", None)
    return VenueKey(fields["api_key"].reveal(), load_private_key(fields["private_key"].reveal().encode()))


async def watched_key(
    environment: ResolvedEnvironment,
    variables: Mapping[str, str],
    random: RandomBytes,
    stack: AsyncExitStack,
    *,
    every_s: float = WATCH_S,
    settle_s: float = SETTLE_S,
) -> Callable[[], VenueKey]:
    """Asks for the key as it is now; another value is noticed within about `every_s`, until `stack` is closed.

    Raises:
        Misconfigured, Unavailable: the key cannot be loaded now.
    """
    fields = environment.capture_key(variables, random)
    match = KEY_REFERENCE.fullmatch(environment.document.capture.key)
    if match is None:
        return lambda: VenueKey("", None)
    name = match.group(1)
    current = venue_key(fields)
    quiet = dataclasses.replace(environment, on_key=None)  # loading happens beside the loop, telling in it

    def changed(now: Fields) -> None:
        nonlocal current
        current = venue_key(now)
        if environment.on_key is not None:
            environment.on_key(name, environment.document.keys[name], now)

    await stack.enter_async_context(
        KeyWatch(name, lambda: quiet.capture_key(variables, random), fields, changed, every_s=every_s, settle_s=settle_s)
    )
    return lambda: current
