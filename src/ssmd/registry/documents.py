"""The registry's documents as strict types: unknown keys are refused, every field has a meaning."""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec

NAME_FORM: Final = r"^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$"
Name = Annotated[str, msgspec.Meta(pattern=NAME_FORM)]
Date = Annotated[str, msgspec.Meta(pattern=r"^\d{4}-\d{2}-\d{2}$")]
Status = Literal["draft", "active", "deprecated"]
TimeOfDay = Annotated[str, msgspec.Meta(pattern=r"^([01]\d|2[0-3]):[0-5]\d$|^24:00$")]
"""HH:MM, quoted in YAML; 24:00 is the end of the day."""
Weekday = Literal["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"]
Kind = Literal["trade", "book", "snapshot", "quote", "status", "gap"]
"""Kinds of records (`schemas.records`)."""
Capability = Literal["trades", "book", "quotes", "status", "sequence-numbers", "snapshots", "history", "listing"]


class Document(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Root of all documents and their parts."""


class Endpoint(Document, frozen=True, kw_only=True):
    """One place where the venue can be reached. `rest` and `websocket` may be "simulator": filled in at run time."""

    rest: str
    websocket: str


class RateLimits(Document, frozen=True, kw_only=True):
    """What the venue allows one account; 0 = it does not say. REST limits count requests, whatever a request costs."""

    rest_reads_per_second: Annotated[int, msgspec.Meta(ge=0)] = 0
    rest_writes_per_second: Annotated[int, msgspec.Meta(ge=0)] = 0
    websocket_connections: Annotated[int, msgspec.Meta(ge=0)] = 0
    websocket_subscriptions: Annotated[int, msgspec.Meta(ge=0)] = 0
    websocket_commands_per_second: Annotated[int, msgspec.Meta(ge=0)] = 0


class WeeklyPause(Document, frozen=True, kw_only=True):
    """A time of every week when the venue does not trade: from `start` (inclusive) to `end` (exclusive) on `day`."""

    day: Weekday
    start: TimeOfDay
    end: TimeOfDay
    reason: str = ""


class Calendar(Document, frozen=True, kw_only=True):
    """When the venue trades: always, but for the pauses. Times are wall-clock times in `timezone`."""

    timezone: str = "UTC"
    weekly_pauses: tuple[WeeklyPause, ...] = ()


class CaptureLocation(Document, frozen=True, kw_only=True):
    """A place the feed is captured from, for people and for placing processes."""

    name: Name
    provider: str = ""
    region: str = ""


class FeedVersion(Document, frozen=True, kw_only=True):
    """What holds for a feed from `effective_from` on (inclusive, UTC date) until `effective_to` (inclusive) or the next."""

    effective_from: Date
    effective_to: Date | None = None
    wire: str
    protocol: Literal["websocket"] = "websocket"
    endpoints: dict[str, Endpoint]
    auth: Literal["kalshi-signature", "none"] = "none"
    channels: tuple[str, ...] = ()
    capabilities: tuple[Capability, ...] = ()
    rate_limits: RateLimits = RateLimits()
    calendar: Calendar = Calendar()


class FeedDocument(Document, frozen=True, kw_only=True):
    """exchanges/feeds/{name}.yaml"""

    name: Name
    display_name: str = ""
    type: Literal["prediction-market", "spot"]
    status: Status
    capture_locations: tuple[CaptureLocation, ...] = ()
    versions: Annotated[tuple[FeedVersion, ...], msgspec.Meta(min_length=1)]


class SchemaVersion(Document, frozen=True, kw_only=True):
    """One version of a record definition.

    `sha256` is of the definition file with its lines ended by LF. `compatible_with`: older versions whose readers
    understand data of this one, and whose data this one reads.
    """

    version: Annotated[int, msgspec.Meta(ge=1)]
    status: Status
    definition: str
    sha256: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}$")]
    effective_from: Date
    compatible_with: tuple[int, ...] = ()


class SchemaDocument(Document, frozen=True, kw_only=True):
    """exchanges/schemas/{name}.yaml: the definition of the records of `kinds`, all under the struct `root`."""

    name: Name
    format: Literal["capnp"]
    root: str
    kinds: tuple[Kind, ...] = ()
    versions: Annotated[tuple[SchemaVersion, ...], msgspec.Meta(min_length=1)]


class SealedSecretSettings(Document, frozen=True, kw_only=True):
    """The SealedSecret that `ssmd key set` writes, for source sealed-secret.

    `certificate` (the cluster's, PEM) and `manifest` (the file that is written): relative to the workspace.
    """

    name: str = ""
    namespace: str = "ssmd"
    scope: Literal["strict", "namespace-wide", "cluster-wide"] = "strict"
    certificate: str = ""
    manifest: str = ""


class VaultSettings(Document, frozen=True, kw_only=True):
    """Where HashiCorp Vault keeps the key: a secret of a key-value engine, version 2, at `mount`.

    `role`: of Vault's kubernetes auth; "" = a token is given (SSMD_VAULT_TOKEN, or SSMD_VAULT_TOKEN_FILE).
    """

    url: str = ""
    mount: str = "secret"
    path: str = ""
    role: str = ""


class KeyDefinition(Document, frozen=True, kw_only=True):
    """A secret the environment needs; never its value. Every `rotation_days` it should be changed; 0 = never.

    `source`: where its fields are. env: SSMD_<KEY>_<FIELD>, or SSMD_<KEY>_<FIELD>_FILE; generated: made by ssmd itself;
    local: encrypted below .ssmd/; file: a directory `path` with one file a field (default /etc/ssmd/keys/<key>; a
    relative one is below the workspace); sealed-secret: the same directory, put there by Kubernetes; vault.
    """

    type: Literal["kalshi-api-key", "opaque"]
    fields: tuple[str, ...]
    required: bool = True
    rotation_days: Annotated[int, msgspec.Meta(ge=0, le=36500)] = 90
    source: Literal["env", "generated", "local", "file", "sealed-secret", "vault"] = "env"
    path: str = ""
    sealed_secret: SealedSecretSettings = SealedSecretSettings()
    vault: VaultSettings = VaultSettings()


class SimulatorSettings(Document, frozen=True, kw_only=True):
    """For endpoint "simulator": a seeded market model of `rate` messages a second at 1x, or a capture's frames.

    `port` 0 = any free one, told by `ssmd up` and in the run file. `capture`: a .jsonl or .jsonl.zst file.
    `start_paused`: frames are held back until POST /simulator/resume.
    """

    seed: int = 1
    rate: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] = 200
    port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 0
    capture: str = ""
    start_paused: bool = False
    markets: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 20
    speed: Annotated[str, msgspec.Meta(pattern=r"^(max|\d+(\.\d+)?x)$")] = "1x"


class Capture(Document, frozen=True, kw_only=True):
    """What is captured: all that `tickers`, `series`, `categories` and `events` name; none named = every open market.

    What is not named by its ticker is followed: new markets come in, settled ones go, at most `tickers_max` at a time.
    `tickers_per_connection`: more markets are shared among several connections.
    """

    endpoint: str
    key: str = ""
    channels: tuple[str, ...] = ("orderbook_delta", "ticker", "trade", "market_lifecycle_v2")
    tickers: tuple[str, ...] = ()
    series: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    events: tuple[str, ...] = ()
    tickers_max: Annotated[int, msgspec.Meta(ge=1, le=500_000)] = 1000
    tickers_per_connection: Annotated[int, msgspec.Meta(ge=1, le=500_000)] = 5000
    connection: Name = "main"
    simulator: SimulatorSettings = SimulatorSettings()


class Transport(Document, frozen=True, kw_only=True):
    """Market data streams. `url` "embedded": a nats-server that `ssmd up` runs. `replicas`: on so many servers of a cluster."""

    backend: Literal["nats", "memory"] = "nats"
    url: str = "embedded"
    replicas: Annotated[int, msgspec.Meta(ge=1, le=5)] = 1
    max_age_hours: Annotated[int, msgspec.Meta(ge=1)] = 72
    max_bytes: Annotated[int, msgspec.Meta(ge=1 << 20)] = 8 << 30


class JournalSettings(Document, frozen=True, kw_only=True):
    """Domain events. `url` and `replicas` as of the transport."""

    backend: Literal["nats", "sqlite", "memory"] = "nats"
    url: str = "embedded"
    replicas: Annotated[int, msgspec.Meta(ge=1, le=5)] = 1


class Storage(Document, frozen=True, kw_only=True):
    """Where segments and manifests go. local: `path`, relative to the environment's state directory.

    s3: `bucket` at `url` ("" = AWS itself), `prefix` before every key ("" or ending in "/"); `key` names a key with the
    fields access_key and secret_key.
    """

    backend: Literal["local", "s3", "memory"] = "local"
    path: str = "archive"
    bucket: str = ""
    url: str = ""
    region: str = "us-east-1"
    prefix: Annotated[str, msgspec.Meta(pattern=r"^(?:[A-Za-z0-9_%-][A-Za-z0-9_.%-]*/)*$")] = ""
    key: str = ""


class CacheSettings(Document, frozen=True, kw_only=True):
    """Where projections are kept. memory: every query folds the journal in process."""

    backend: Literal["redis", "memory"] = "redis"
    url: str = "embedded"


class TapeSettings(Document, frozen=True, kw_only=True):
    """The connector's local log. Past `bytes_max` capture stops (a gap) rather than lose what is recorded."""

    block_ms: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 10
    block_bytes: Annotated[int, msgspec.Meta(ge=4096, le=1 << 20)] = 256 << 10
    fsync_ms: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 20
    file_bytes: Annotated[int, msgspec.Meta(ge=1 << 16)] = 64 << 20
    bytes_max: Annotated[int, msgspec.Meta(ge=1 << 20)] = 16 << 30


class ArchiveSettings(Document, frozen=True, kw_only=True):
    """When a segment is cut: at `segment_bytes` of content, at the day's end, or after `idle_seconds` without data."""

    segment_bytes: Annotated[int, msgspec.Meta(ge=1 << 16)] = 64 << 20
    idle_seconds: Annotated[float, msgspec.Meta(gt=0)] = 300.0
    zstd_level: Annotated[int, msgspec.Meta(ge=1, le=19)] = 3


class GatewaySettings(Document, frozen=True, kw_only=True):
    """Who may ask for data, where and how.

    `port` 0 = any free one, told by `ssmd up` and in the run file. `auth` keys: whoever has a key of `ssmd client create`;
    dev: whoever is on this machine (loopback only). `tls_certificate` (with its chain) and `tls_key`: PEM files, relative to
    the workspace. `cors_origins`: pages of other sites that browsers may let ask ("https://desk.example").
    """

    host: str = "127.0.0.1"
    port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 8900
    auth: Literal["keys", "dev"] = "keys"
    tls_certificate: str = ""
    tls_key: str = ""
    cors_origins: tuple[str, ...] = ()


class Schedule(Document, frozen=True, kw_only=True):
    """When trading days are started and ended, in the environment's time zone. No `days`: by hand, or by `ssmd up`.

    The rest is done in either case: the security master is compared with the venue every `sync_minutes` (what changed;
    0 = never) and at `full_sync` (all of it), keys are looked at then too; gaps that were not repaired are asked for again
    every `repair_minutes` (0 = never). A start or end that was missed for less than
    `catch_up_hours` is made up for, later ones in order; one that begins `late_minutes` after its time is called late.
    """

    days: tuple[Weekday, ...] = ()
    start: TimeOfDay = "00:00"
    end: TimeOfDay = "24:00"
    sync_minutes: Annotated[int, msgspec.Meta(ge=0, le=1440)] = 5
    full_sync: TimeOfDay = "04:00"
    repair_minutes: Annotated[int, msgspec.Meta(ge=0, le=1440)] = 60
    catch_up_hours: Annotated[int, msgspec.Meta(ge=1, le=720)] = 72
    late_minutes: Annotated[int, msgspec.Meta(ge=1, le=1440)] = 5


class TemporalSettings(Document, frozen=True, kw_only=True):
    """Who drives schedules and days. `url` "embedded": a server that `ssmd up` runs; else HOST:PORT, or a key that holds it.

    "" = nobody: days are started and ended in process, by hand, and nothing is scheduled.
    """

    url: str = "embedded"
    namespace: Name = "ssmd"


class Retention(Document, frozen=True, kw_only=True):
    """For how many days archived segments are kept; 0 = for ever."""

    raw_days: Annotated[int, msgspec.Meta(ge=0)] = 0
    normalized_days: Annotated[int, msgspec.Meta(ge=0)] = 0


class Shard(Document, frozen=True, kw_only=True):
    """A part of the tickers: those that equal a pattern of `tickers`, or begin so where it ends in `*`.

    `rest`: all that no other shard takes.
    """

    tickers: tuple[str, ...] = ()
    rest: bool = False


class Limits(Document, frozen=True, kw_only=True):
    """What one process of the environment may use, for deployments; 0 = no limit. `ssmd up` does not enforce them."""

    cpu_millis: Annotated[int, msgspec.Meta(ge=0)] = 0
    memory_bytes: Annotated[int, msgspec.Meta(ge=0)] = 0
    disk_bytes: Annotated[int, msgspec.Meta(ge=0)] = 0


class EnvironmentDocument(Document, frozen=True, kw_only=True):
    """exchanges/environments/{name}.yaml

    `replicate`: a second place that something else copies the archive to, keys and all; nothing is pruned that is not whole
    there, and repairs may come from there.
    """

    keys: dict[str, KeyDefinition] = {}
    name: Name
    status: Status = "active"
    feed: Name
    schema: str
    timezone: str = "UTC"
    schedule: Schedule = Schedule()
    capture: Capture
    transport: Transport = Transport()
    journal: JournalSettings = JournalSettings()
    storage: Storage = Storage()
    replicate: Storage | None = None
    cache: CacheSettings = CacheSettings()
    tape: TapeSettings = TapeSettings()
    archive: ArchiveSettings = ArchiveSettings()
    gateway: GatewaySettings = GatewaySettings()
    temporal: TemporalSettings = TemporalSettings()
    retention: Retention = Retention()
    shards: dict[str, Shard] = {}
    limits: Limits = Limits()
