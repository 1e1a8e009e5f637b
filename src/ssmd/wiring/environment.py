"""Which environment is meant, and everything a process must know of it before it starts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from ssmd.errors import Malformed, Misconfigured, Unavailable
from ssmd.identifiers import RandomBytes, system_random
from ssmd.keys.private_files import check_name, read_shared, text_of, write_private
from ssmd.keys.secret import Secret
from ssmd.keys.source import resolve_key
from ssmd.registry.documents import Endpoint, EnvironmentDocument, FeedDocument, FeedVersion, KeyDefinition, SchemaVersion
from ssmd.registry.findings import did_you_mean
from ssmd.registry.git import Git
from ssmd.registry.integrity import KEY_REFERENCE, split_schema, version_in_force
from ssmd.registry.loader import load_registry
from ssmd.services.run_file import RunFile, live_run
from ssmd.settings import Workspace
from ssmd.streams.nkeys_url import with_nkey
from ssmd.streams.permissions import OPERATOR

EMBEDDED: Final = "embedded"
SIMULATOR: Final = "simulator"
CURRENT_FILE: Final = "current-env"

Server = Literal["journal", "transport", "cache", "temporal"]


@dataclass(frozen=True)
class ResolvedEnvironment:
    """One environment, checked, on one date, as it runs now on this machine.

    Attributes:
        date: as of which the feed version holds (YYYY-MM-DD, UTC).
        schema: the version of record definitions in force; its hash is that of the packaged one.
        config: git commit that last changed the registry, "" = not under git.
        run: the `ssmd up` that is on, None = none.
        role: as whom NATS servers know us (`streams.permissions`), where we are given a key for them.
        on_key: told each key that is loaded, with its definition and fields; None = nobody asks.
    """

    workspace: Workspace
    document: EnvironmentDocument
    feed: FeedDocument
    feed_version: FeedVersion
    schema: SchemaVersion
    date: str
    config: str
    run: RunFile | None
    on_key: Callable[[str, KeyDefinition, Mapping[str, Secret]], None] | None = None
    role: str = OPERATOR

    @property
    def name(self) -> str:
        return self.document.name

    @property
    def directory(self) -> Path:
        """.ssmd/{env}"""
        return self.workspace.environment(self.name)

    @property
    def archive_directory(self) -> Path:
        """Where storage: local keeps objects."""
        return self.directory / self.document.storage.path

    @property
    def endpoint(self) -> Endpoint:
        """Where the venue is, with the running simulator's addresses in place of "simulator".

        Raises:
            Unavailable: it is the simulator, and none runs.
        """
        endpoint = self.feed_version.endpoints[self.document.capture.endpoint]
        if SIMULATOR not in (endpoint.rest, endpoint.websocket):
            return endpoint
        if self.run is None or not self.run.endpoints.simulator_websocket:
            raise Unavailable(f"the simulator of {self.name} is not running", mend=f"ssmd up {self.name}")
        return Endpoint(
            rest=self.run.endpoints.simulator_rest if endpoint.rest == SIMULATOR else endpoint.rest,
            websocket=self.run.endpoints.simulator_websocket if endpoint.websocket == SIMULATOR else endpoint.websocket,
        )

    @property
    def uses_simulator(self) -> bool:
        endpoint = self.feed_version.endpoints[self.document.capture.endpoint]
        return SIMULATOR in (endpoint.rest, endpoint.websocket)

    def is_embedded(self, server: Server) -> bool:
        """Whether `ssmd up` runs that server."""
        return self._settings_url(server) == EMBEDDED

    def server_url(self, server: Server, variables: Mapping[str, str]) -> str:
        """Where `server` is reached; the url may hold a password, so it belongs in no message.

        Raises:
            Unavailable: it is embedded and the environment does not run.
            Misconfigured: the key that holds the url has no value.
        """
        url = self._settings_url(server)
        if url == EMBEDDED:
            running = "" if self.run is None else str(getattr(self.run.endpoints, f"{server}_url"))
            if not running:
                raise Unavailable(f"{self.name} is not running: it has no {server} server", mend=f"ssmd up {self.name}")
            return running
        match = KEY_REFERENCE.fullmatch(url)
        if match is not None:
            fields = self.key(match.group(1), variables)
            wanted = match.group(2) or next(iter(fields), "")
            if wanted not in fields:
                raise Misconfigured(f'{server}.url of {self.name} is "{url}", which has no value')
            url = fields[wanted].reveal()
        seed = "" if server in {"cache", "temporal"} else nats_seed(variables, self.role)
        return with_nkey(url, seed) if seed and "@" not in url else url

    def key(self, name: str, variables: Mapping[str, str], random: RandomBytes = system_random) -> dict[str, Secret]:
        """The fields of one of the environment's keys; {} = optional and not given. Raises Misconfigured otherwise."""
        definition = self.document.keys[name]
        fields = resolve_key(
            name,
            definition,
            variables=variables,
            directory=self.directory / "keys",
            random=random,
            env=self.name,
            root=self.workspace.root,
        )
        if self.on_key is not None:
            self.on_key(name, definition, fields)
        return fields

    def capture_key(self, variables: Mapping[str, str], random: RandomBytes = system_random) -> dict[str, Secret]:
        """The fields of the key that `capture.key` names; {} = none. Raises as `key`."""
        match = KEY_REFERENCE.fullmatch(self.document.capture.key)
        return {} if match is None else self.key(match.group(1), variables, random)

    def storage_key(self, variables: Mapping[str, str], random: RandomBytes = system_random) -> dict[str, Secret]:
        """The fields of the key that `storage.key` names; {} = none. Raises as `key`."""
        match = KEY_REFERENCE.fullmatch(self.document.storage.key)
        return {} if match is None else self.key(match.group(1), variables, random)

    def _settings_url(self, server: Server) -> str:
        match server:
            case "journal":
                return self.document.journal.url
            case "transport":
                return self.document.transport.url
            case "cache":
                return self.document.cache.url
            case "temporal":
                return self.document.temporal.url


def nats_seed(variables: Mapping[str, str], role: str) -> str:
    """The NATS key of a process: in the file SSMD_NATS_NKEY_FILE, or below SSMD_NATS_NKEYS by role; "" = none is given.

    Raises:
        Misconfigured: both are given, or the file cannot be read or is not ours alone.
    """
    file, directory = variables.get("SSMD_NATS_NKEY_FILE", ""), variables.get("SSMD_NATS_NKEYS", "")
    if file and directory:
        raise Misconfigured("SSMD_NATS_NKEY_FILE and SSMD_NATS_NKEYS are both set: which one holds?")
    if not file and not directory:
        return ""
    path = Path(file) if file else Path(directory) / f"{check_name(role)}.nk"
    payload = read_shared(path)
    if payload is None:
        raise Misconfigured(f"there is no NATS key {path}", mend="ssmd streams auth")
    return text_of(payload, f"the NATS key of {role} should be in {path}").strip()


def resolve_environment(workspace: Workspace, name: str, date: str) -> ResolvedEnvironment:
    """The environment `name` of the workspace's registry as of `date` (YYYY-MM-DD, UTC), and its run.

    Raises:
        InvalidRegistry: the registry has mistakes; all are listed, and nothing may start.
        Misconfigured: no such environment.
        Malformed: the run file is damaged.
    """
    registry = load_registry(workspace.registry, date=date)
    document = registry.environments.get(name)
    if document is None:
        raise _unknown(name, list(registry.environments), "")
    feed = registry.feeds[document.feed]
    feed_version = version_in_force(feed, date)
    schema_name, number = split_schema(document.schema)
    schema = next((one for one in registry.schemas[schema_name].versions if one.version == number), None)
    if feed_version is None or schema is None:
        raise AssertionError(f"the registry was loaded, but {name} lacks its feed version or schema")
    return ResolvedEnvironment(
        workspace=workspace,
        document=document,
        feed=feed,
        feed_version=feed_version,
        schema=schema,
        date=date,
        config=registry_commit(workspace),
        run=live_run(workspace.environment(name)),
    )


def environment_names(workspace: Workspace) -> list[str]:
    """Names of the environments the registry has files for, read or not."""
    directory = workspace.registry / "environments"
    return sorted(path.stem for path in directory.glob("*.yaml")) if directory.is_dir() else []


def choose_environment(workspace: Workspace, given: str, variables: Mapping[str, str]) -> str:
    """Which environment a command means: `given` (--env), else SSMD_ENV, else `ssmd env use`, else the only one.

    Raises:
        Misconfigured: none is said and there are several or none, or the one that is said does not exist.
    """
    names = environment_names(workspace)
    for name, source in (
        (given, "--env"),
        (variables.get("SSMD_ENV", ""), "SSMD_ENV"),
        (read_current(workspace), "ssmd env use"),
    ):
        if name:
            if name not in names:
                raise _unknown(name, names, source)
            return name
    if len(names) == 1:
        return names[0]
    if not names:
        raise Misconfigured(
            f"there is no environment in {workspace.registry / 'environments'}",
            mend="run ssmd inside a workspace, or name one with --workspace DIR",
        )
    running = [name for name in names if _runs_here(workspace, name)]
    likely = running[0] if len(running) == 1 else names[0]
    here = f"; {', '.join(running)} {'runs' if len(running) == 1 else 'run'} on this machine" if running else ""
    raise Misconfigured(
        f"which environment? There are {', '.join(names)}{here}", mend=f"ssmd env use {likely}, or --env {likely}"
    )


def _runs_here(workspace: Workspace, name: str) -> bool:
    try:
        return live_run(workspace.environment(name)) is not None
    except (Malformed, OSError):
        return False  # only a proposal; the command that means it tells


def _unknown(name: str, names: list[str], source: str) -> Misconfigured:
    said = f" (said by {source})" if source else ""
    known = f"there are {', '.join(names)}" if names else "there are none"
    mend = did_you_mean(name, names)
    if not mend and names:
        mend = f"ssmd env use {names[0]}" if source == "ssmd env use" else "ssmd env list"
    return Misconfigured(f'there is no environment "{name}"{said}; {known}', mend=mend)


def read_current(workspace: Workspace) -> str:
    """What `ssmd env use` stored, "" = nothing."""
    try:
        return (workspace.state / CURRENT_FILE).read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        path = workspace.state / CURRENT_FILE
        raise Misconfigured(f"{path} cannot be read: {error}", mend=f"rm {path}") from error


def store_current(workspace: Workspace, name: str) -> None:
    """Make `name` what commands mean.

    Raises:
        Misconfigured: there is no such environment, or .ssmd/ cannot be written.
    """
    names = environment_names(workspace)
    if name not in names:
        raise _unknown(name, names, "")
    write_private(workspace.state / CURRENT_FILE, f"{name}\n".encode(), mode=0o644)


def registry_commit(workspace: Workspace) -> str:
    """Git commit that last changed the registry, "" when it is not under git (or git is not installed)."""
    try:
        return Git(workspace.root, workspace.registry.name).last_change()
    except (Misconfigured, Unavailable):
        return ""
