"""What an environment captures, as a connector's group of connections."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from ssmd.errors import Misconfigured
from ssmd.exchanges.kalshi.combos import is_combo
from ssmd.registry.shards import shard_of
from ssmd.services.connector.group import ConnectorGroup
from ssmd.services.connector.universe import Selection, Universe

if TYPE_CHECKING:
    from ssmd.identifiers import RandomBytes
    from ssmd.registry.documents import EnvironmentDocument
    from ssmd.services.connector.group import MakeMember
    from ssmd.services.connector.universe import Listing
    from ssmd.services.connector.venue import Venue

SHARD: Final = "SSMD_SHARD"
COMMANDS_S: Final = 200
"""Commands a second and connection, where the venue allows more."""
SHARD_REFRESH_S: Final = 30.0
"""How often a shard that is not told of new markets reads the listing."""


class ShardPart(NamedTuple):
    """A process's part of the capture. `name` "" = all of it."""

    name: str
    connection: str
    has_shared: bool


def shard_part(document: EnvironmentDocument, variables: Mapping[str, str]) -> ShardPart:
    """The part of the capture that this process has, by SSMD_SHARD.

    The channels without a ticker filter belong to the shard that takes the rest, else to the first.

    Raises:
        Misconfigured: there is no such shard.
    """
    name, connection = variables.get(SHARD, ""), document.capture.connection
    if not name:
        return ShardPart("", connection, has_shared=True)
    if name not in document.shards:
        known = ", ".join(document.shards) or "none"
        raise Misconfigured(f"{document.name} has no shard {name!r}; it has: {known}", mend=f"ssmd env show {document.name}")
    with_rest = next((one for one, shard in document.shards.items() if shard.rest), next(iter(document.shards)))
    return ShardPart(name, f"{connection}-{name}", has_shared=name == with_rest)


def capture_group(
    document: EnvironmentDocument,
    part: ShardPart,
    venue: Venue,
    listing: Listing,
    make_member: MakeMember,
    random: RandomBytes,
) -> ConnectorGroup:
    """The connections of `part`, not started."""
    capture = document.capture
    selection = Selection(
        capture.tickers,
        capture.series,
        capture.categories,
        capture.events,
        is_apart=is_combo,
        tickers_max=capture.tickers_max,
    )
    if part.name:
        selection = selection._replace(
            tickers=tuple(one for one in capture.tickers if shard_of(document.shards, one) == part.name),
            takes=partial(_is_in, document, part.name),
        )
        if capture.tickers and not selection.tickers and not (capture.series or capture.categories or capture.events):
            raise Misconfigured(f"shard {part.name!r} of {document.name} takes none of capture.tickers")
    more = {} if part.has_shared else {"refresh_s": SHARD_REFRESH_S}
    return ConnectorGroup(
        venue,
        Universe(selection, listing),
        make_member,
        random,
        instance=part.connection,
        channels=capture.channels,
        has_shared=part.has_shared,
        tickers_per_connection=capture.tickers_per_connection,
        **more,
    )


def _is_in(document: EnvironmentDocument, name: str, ticker: str) -> bool:
    return shard_of(document.shards, ticker) == name


def tape_of(directory: Path, connection: str) -> Path:
    """The tape of a connection of the environment that lives in `directory`."""
    return directory / "tape" / connection
