"""An environment's keys, opened with its journal, whether the environment runs or not, and even before it ever did."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from ssmd.application.handler import Application
from ssmd.clock import Clock
from ssmd.domain.catalogue import CATALOGUE
from ssmd.errors import Misconfigured, Rejected
from ssmd.identifiers import RandomBytes
from ssmd.keys.local_store import make_passphrase, passphrase
from ssmd.keys.secret import Secret
from ssmd.keys.store import KeyPlaces
from ssmd.registry.integrity import KEY_REFERENCE
from ssmd.services.embedded_servers import start_nats
from ssmd.services.run_file import RunLock
from ssmd.streams import topology
from ssmd.streams.connection import Connection
from ssmd.streams.journal import Journal
from ssmd.wiring.backends import JOURNAL_DIRECTORY, open_journal, reading_journal
from ssmd.wiring.environment import ResolvedEnvironment
from ssmd.wiring.keys import Keys

CONNECT_TIMEOUT_S: Final = 5.0


def places_of(environment: ResolvedEnvironment, variables: Mapping[str, str], random: RandomBytes) -> KeyPlaces:
    """What the environment's keys are found by."""
    workspace = environment.workspace
    directory = environment.directory / "keys"
    return KeyPlaces(environment.name, workspace.root, workspace.state, directory, variables, random)


def prepare_local_store(environment: ResolvedEnvironment, variables: Mapping[str, str], random: RandomBytes) -> Path | None:
    """Make the passphrase of the encrypted store where a key wants it and there is none; the file that was made.

    Raises:
        Misconfigured: it cannot be read or made, or keys are there that a passphrase now missing has locked.
    """
    state = environment.workspace.state
    if not any(definition.source == "local" for definition in environment.document.keys.values()):
        return None
    if passphrase(variables, state):
        return None
    locked = sorted(state.glob("*/keys/local/*.json"))
    if locked:
        raise Misconfigured(
            f"there are keys ({locked[0]}), but not the passphrase they are locked with",
            mend="export SSMD_KEYS_PASSPHRASE_FILE=PATH, or remove them and set the keys anew",
        )
    return make_passphrase(state, random)


@asynccontextmanager
async def opened_keys(
    environment: ResolvedEnvironment,
    variables: Mapping[str, str],
    clock: Clock,
    random: RandomBytes,
    actor: str,
    say: Callable[[str], None],
) -> AsyncGenerator[Keys]:
    """The environment's keys. A journal that is not there yet is made; an embedded one that is off runs meanwhile.

    Raises:
        Misconfigured: the journal is in the memory of another process.
        Unavailable: its server does not answer.
    """
    async with _writing_journal(environment, variables, say) as journal:
        application = Application(journal, CATALOGUE, clock, random, environment.config)
        yield Keys(environment, places_of(environment, variables, random), journal, application, clock, actor)


@asynccontextmanager
async def _writing_journal(
    environment: ResolvedEnvironment, variables: Mapping[str, str], say: Callable[[str], None]
) -> AsyncGenerator[Journal]:
    backend = environment.document.journal.backend
    if backend == "sqlite":
        environment.directory.mkdir(parents=True, exist_ok=True)
        journal = await open_journal(environment, variables)
        try:
            yield journal
        finally:
            await journal.close()
        return
    is_new = backend == "nats" and environment.is_embedded("journal") and environment.run is None
    if is_new and not (environment.directory / JOURNAL_DIRECTORY / "jetstream").is_dir():
        await _make_journal(environment, say)
    async with reading_journal(environment, variables, say) as journal:
        yield journal


async def _make_journal(environment: ResolvedEnvironment, say: Callable[[str], None]) -> None:
    """The first command of an environment may set a key: then there is no journal to tell it to."""
    with RunLock(environment.directory, environment.name):
        server = await start_nats(environment.directory / JOURNAL_DIRECTORY, sync_always=True, say=say)
        try:
            connection = await Connection.open(server.url, name=f"ssmd {environment.name} keys", timeout_s=CONNECT_TIMEOUT_S)
            try:
                await topology.apply({"journal": connection}, [topology.journal_stream(environment.name)])
            finally:
                await connection.close()
        finally:
            await server.stop()


async def ask_venue(environment: ResolvedEnvironment, clock: Clock, name: str, fields: Mapping[str, Secret]) -> str:
    """Why the venue refuses the key `name` that signs its requests, "" = it takes it.

    Raises:
        Rejected: that key is for nothing that can be asked.
        Unavailable: no answer, or it is a simulator that does not run.
    """
    from ssmd.services.connector.kalshi_venue import ask_whether_accepted  # noqa: PLC0415 - what most commands do not need
    from ssmd.wiring.venue_key import venue_key  # noqa: PLC0415 - as above

    match = KEY_REFERENCE.fullmatch(environment.document.capture.key)
    if match is None or match.group(1) != name:
        raise Rejected("nobody-to-ask", f'key "{name}" does not sign requests to the venue', mend="leave --online out")
    return await ask_whether_accepted(environment.endpoint.rest, venue_key(fields), clock)
