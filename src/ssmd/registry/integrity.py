"""The rules between documents: what one names, another must hold."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from functools import cache
from importlib import resources
from typing import Final

import msgspec

from ssmd.registry.calendars import calendar_findings, schedule_findings, zone_findings
from ssmd.registry.conversion import Path
from ssmd.registry.documents import EnvironmentDocument, FeedDocument, FeedVersion, KeyDefinition, SchemaDocument
from ssmd.registry.findings import Finding, did_you_mean
from ssmd.registry.shards import limit_findings, shard_findings
from ssmd.registry.sources import Source, Sources
from ssmd.registry.tree import Tree

KEY_REFERENCE: Final = re.compile(r"\$key:([a-z0-9-]+)(?:\.([a-z0-9_]+))?")
"""`$key:name` or `$key:name.field`; the value is looked up at run time only."""
_SCHEMA_REFERENCE: Final = re.compile(r"([a-z0-9-]+):([1-9][0-9]{0,5})")
_FIELDS_OF_KALSHI_KEY: Final = ("api_key", "private_key")


@cache
def packaged_sha256() -> str:
    """sha256 of the definition this ssmd encodes with."""
    return hashlib.sha256(resources.files("ssmd.schemas").joinpath("market.capnp").read_bytes()).hexdigest()


def definition_sha256(payload: bytes) -> str:
    """sha256 of a definition with its lines ended by LF, as git stores it: a checkout may end them with CRLF."""
    return hashlib.sha256(payload.replace(b"\r\n", b"\n")).hexdigest()


def version_in_force(feed: FeedDocument, date: str) -> FeedVersion | None:
    """The version that holds on `date` (YYYY-MM-DD, both ends inclusive; "" = the newest), None before or between all."""
    versions = sorted(feed.versions, key=lambda version: version.effective_from)
    if not date:
        return versions[-1]
    for version in reversed(versions):
        if version.effective_from <= date:
            return version if version.effective_to is None or date <= version.effective_to else None
    return None


def split_schema(reference: str) -> tuple[str, int]:
    """("market", 1) of "market:1"; ("", 0) when it is no such reference."""
    match = _SCHEMA_REFERENCE.fullmatch(reference)
    return (match.group(1), int(match.group(2))) if match else ("", 0)


def integrity_findings(sources: Sources, *, date: str) -> list[Finding]:
    """Everything wrong between the documents; references to a document that could not be read are passed over."""
    findings: list[Finding] = []
    for feed in sources.feeds.values():
        findings.extend(_feed(feed))
        findings.extend(calendar_findings(feed))
    for schema in sources.schemas.values():
        findings.extend(_schema(schema, sources.tree))
    for environment in sources.environments.values():
        findings.extend(_feed_reference(environment, sources, date))
        findings.extend(_schema_reference(environment, sources))
        findings.extend(_key_definitions(environment))
        findings.extend(_key_references(environment))
        findings.extend(_capture_key(environment))
        findings.extend(_backends(environment))
        findings.extend(zone_findings(environment, ("timezone",), environment.document.timezone))
        findings.extend(schedule_findings(environment))
        findings.extend(shard_findings(environment))
        findings.extend(limit_findings(environment))
    return findings


def _feed(source: Source[FeedDocument]) -> Iterator[Finding]:
    locations = [location.name for location in source.document.capture_locations]
    for index, name in enumerate(locations):
        if name in locations[:index]:
            yield source.finding(("capture_locations", index, "name"), "duplicate-name", f'location "{name}" stands twice')
    previous: FeedVersion | None = None
    for index, version in enumerate(source.document.versions):
        at: Path = ("versions", index)
        if version.effective_to is not None and version.effective_to < version.effective_from:
            message = f"effective_to {version.effective_to} is before effective_from {version.effective_from}"
            yield source.finding((*at, "effective_to"), "bad-interval", message)
        if previous is not None:
            end = previous.effective_to
            if version.effective_from <= previous.effective_from:
                message = (
                    f"effective_from {version.effective_from} does not follow {previous.effective_from} of the version above"
                )
                yield source.finding((*at, "effective_from"), "overlap", message, "order versions by date, each date once")
            elif end is not None and version.effective_from <= end:
                message = f"effective_from {version.effective_from} lies in the version above, which holds until {end}"
                yield source.finding((*at, "effective_from"), "overlap", message)
        previous = version


def _schema(source: Source[SchemaDocument], tree: Tree) -> Iterator[Finding]:
    numbers: set[int] = set()
    for index, version in enumerate(source.document.versions):
        at: Path = ("versions", index)
        if version.version in numbers:
            yield source.finding((*at, "version"), "duplicate-version", f"version {version.version} stands twice")
        for place, older in enumerate(version.compatible_with):
            if older not in numbers:
                message = f"compatible_with names version {older}, which does not stand above"
                yield source.finding((*at, "compatible_with", place), "unknown-version", message)
        numbers.add(version.version)
        payload = None if "/" in version.definition else tree.files.get(f"schemas/{version.definition}")
        if payload is None:
            message = f'definition "{version.definition}" is not a file beside {source.document.name}.yaml'
            yield source.finding((*at, "definition"), "missing-definition", message)
            continue
        found = definition_sha256(payload)
        if found != version.sha256:
            message = f"sha256 is not that of {version.definition}, which is {found}"
            mend = "a released definition must not change: restore it, or add a version"
            yield source.finding((*at, "sha256"), "hash-mismatch", message, mend)


def _feed_reference(source: Source[EnvironmentDocument], sources: Sources, date: str) -> Iterator[Finding]:
    document = source.document
    found = sources.feeds.get(document.feed)
    if found is None:
        if f"feeds/{document.feed}" not in sources.broken:
            mend = did_you_mean(document.feed, sources.feeds) or f"known: {', '.join(sources.feeds) or 'none'}"
            yield source.finding(("feed",), "unknown-feed", f'feed "{document.feed}" is not in feeds/', mend)
        return
    feed = found.document
    if document.status == "active" and feed.status != "active":
        message = f'feed "{feed.name}" is {feed.status}; an active environment needs an active feed'
        yield source.finding(("feed",), "feed-not-active", message, f"set status: active in {found.file}")
    version = version_in_force(feed, date)
    if version is None:
        message = f'feed "{feed.name}" has no version in force on {date}'
        yield source.finding(("feed",), "no-feed-version", message, f"add a version to {found.file}")
        return
    capture = document.capture
    if capture.endpoint not in version.endpoints:
        message = f'endpoint "{capture.endpoint}" is not among those of feed "{feed.name}" from {version.effective_from}'
        mend = did_you_mean(capture.endpoint, version.endpoints) or f"known: {', '.join(version.endpoints)}"
        yield source.finding(("capture", "endpoint"), "unknown-endpoint", message, mend)
    for index, channel in enumerate(capture.channels):
        if version.channels and channel not in version.channels:
            message = f'channel "{channel}" is not among those of feed "{feed.name}"'
            mend = did_you_mean(channel, version.channels) or f"known: {', '.join(version.channels)}"
            yield source.finding(("capture", "channels", index), "unknown-channel", message, mend)
    if version.auth == "kalshi-signature" and not capture.key:
        message = f'feed "{feed.name}" asks for a key ({version.auth}), and capture.key names none'
        yield source.finding(("capture", "key"), "missing-key", message, "define one under keys, write key: $key:NAME")


def _schema_reference(source: Source[EnvironmentDocument], sources: Sources) -> Iterator[Finding]:
    document = source.document
    name, number = split_schema(document.schema)
    if not name:
        message = f'schema must be NAME:VERSION, found "{document.schema}"'
        yield source.finding(("schema",), "wrong-form", message, "for example market:1")
        return
    found = sources.schemas.get(name)
    if found is None:
        if f"schemas/{name}" not in sources.broken:
            mend = did_you_mean(name, sources.schemas) or f"known: {', '.join(sources.schemas) or 'none'}"
            yield source.finding(("schema",), "unknown-schema", f'schema "{name}" is not in schemas/', mend)
        return
    version = next((one for one in found.document.versions if one.version == number), None)
    if version is None:
        known = ", ".join(str(one.version) for one in found.document.versions)
        message = f'schema "{name}" has no version {number}'
        yield source.finding(("schema",), "unknown-schema", message, f"known: {known}")
        return
    if document.status != "active":
        return
    if version.status != "active":
        message = f'schema "{document.schema}" is {version.status}; an active environment needs an active schema'
        yield source.finding(("schema",), "schema-not-active", message, f"set its status in {found.file}")
    if version.sha256 != packaged_sha256():
        message = f'schema "{document.schema}" is not the one this ssmd writes, whose sha256 is {packaged_sha256()}'
        yield source.finding(
            ("schema",), "schema-not-packaged", message, "name the version with that sha256, or install its ssmd"
        )


def _texts(value: object, at: Path = ()) -> Iterator[tuple[Path, str]]:
    """Every text of a document, with where it stands."""
    if isinstance(value, str):
        yield at, value
    elif isinstance(value, msgspec.Struct):
        for name in value.__struct_fields__:
            yield from _texts(getattr(value, name), (*at, name))
    elif isinstance(value, dict):
        for name, part in value.items():
            yield from _texts(part, (*at, name))
    elif isinstance(value, tuple):
        for index, part in enumerate(value):
            yield from _texts(part, (*at, index))


def _key_definitions(source: Source[EnvironmentDocument]) -> Iterator[Finding]:
    for name, key in source.document.keys.items():
        if not re.fullmatch(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?", name):
            yield source.finding(("keys", name), "wrong-form", f"key {name!r} must be named of a-z, 0-9 and -")
        if key.type == "kalshi-api-key" and sorted(key.fields) != sorted(_FIELDS_OF_KALSHI_KEY):
            message = f'key "{name}" of type kalshi-api-key has the fields api_key and private_key'
            yield source.finding(("keys", name, "fields"), "wrong-fields", message, "write fields: [api_key, private_key]")
        if not key.fields:
            yield source.finding(
                ("keys", name, "fields"), "missing-field", f'key "{name}" has no field', "write fields: [token]"
            )
        yield from _key_place(source, name, key)
        for index, field in enumerate(key.fields):
            if not re.fullmatch(r"[a-z][a-z0-9_]*", field):
                yield source.finding(
                    ("keys", name, "fields", index), "wrong-form", f'field "{field}" must be of a-z, 0-9 and _'
                )


_VAULT_URL: Final = re.compile(r"https://[^/]|http://(?:127\.0\.0\.1|localhost)(?:[:/]|$)")
_KUBERNETES_NAME: Final = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?")


def _key_place(source: Source[EnvironmentDocument], name: str, key: KeyDefinition) -> Iterator[Finding]:
    """What the key's source must know, and that no file it names lies outside of the workspace."""
    at = ("keys", name)
    wanted = {"sealed-secret": ("sealed_secret", ("name", "certificate", "manifest")), "vault": ("vault", ("url", "path"))}
    section, fields = wanted.get(key.source, ("", ()))
    settings = getattr(key, section, None)
    for field in fields:
        if not getattr(settings, field):
            message = f'key "{name}" lacks {section}.{field}, which source {key.source} needs'
            yield source.finding((*at, "source"), "missing-field", message, f"add {field}: below {section}:")
    sealed = key.sealed_secret
    for field, text in (("name", sealed.name), ("namespace", sealed.namespace)):
        if text and not _KUBERNETES_NAME.fullmatch(text):
            message = f'sealed_secret.{field} "{text}" of key "{name}" is no name of Kubernetes'
            yield source.finding((*at, "sealed_secret", field), "wrong-form", message, "use a-z, 0-9, - and .")
    for field, text in (("certificate", sealed.certificate), ("manifest", sealed.manifest)):
        if text.startswith("/") or ".." in text.split("/") or "\\" in text or not text.isprintable():
            message = f'sealed_secret.{field} of key "{name}" must be a path inside the workspace'
            yield source.finding((*at, "sealed_secret", field), "wrong-form", message, "write it relative to the workspace")
    if ".." in key.path.split("/") or not key.path.isprintable():
        yield source.finding((*at, "path"), "wrong-form", f'path of key "{name}" must not hold ".."', "write it without")
    url = key.vault.url
    if url and (not _VAULT_URL.match(url) or "@" in url):
        message = f'vault.url of key "{name}" must begin with https:// (http:// on this machine only), and hold no user'
        yield source.finding((*at, "vault", "url"), "wrong-url", message)


def _key_references(source: Source[EnvironmentDocument]) -> Iterator[Finding]:
    keys = source.document.keys
    for at, text in _texts(source.document):
        if "$key:" not in text:
            continue
        match = KEY_REFERENCE.fullmatch(text)
        if match is None:
            message = f"{'.'.join(map(str, at))} mixes a key reference with other text, or names no key"
            yield source.finding(at, "wrong-form", message, "write $key:NAME or $key:NAME.FIELD and nothing else")
        elif (key := keys.get(match.group(1))) is None:
            mend = did_you_mean(match.group(1), keys) or f"define it under keys; known: {', '.join(keys) or 'none'}"
            yield source.finding(at, "unknown-key-reference", f'"{text}" names a key that is not defined', mend)
        elif match.group(2) and match.group(2) not in key.fields:
            mend = did_you_mean(match.group(2), key.fields) or f"known: {', '.join(key.fields)}"
            yield source.finding(at, "unknown-key-reference", f'"{text}" names a field that the key lacks', mend)


def _capture_key(source: Source[EnvironmentDocument]) -> Iterator[Finding]:
    reference = source.document.capture.key
    if reference and "$key:" not in reference:
        message = "capture.key must be a reference; the registry never holds a secret"
        yield source.finding(("capture", "key"), "secret-in-registry", message, "write $key:NAME, and define NAME under keys")
    elif "." in reference:
        yield source.finding(("capture", "key"), "wrong-form", "capture.key names a whole key", "write $key:NAME")


_URL_SCHEMES: Final = {"nats": ("nats://", "tls://"), "redis": ("redis://", "rediss://", "unix://")}


def _backends(source: Source[EnvironmentDocument]) -> Iterator[Finding]:
    document = source.document
    for section, backend, url in (
        ("transport", document.transport.backend, document.transport.url),
        ("journal", document.journal.backend, document.journal.url),
        ("cache", document.cache.backend, document.cache.url),
    ):
        schemes = _URL_SCHEMES.get(backend, ())
        if re.search(r"//[^/@]*:[^/@]*@", url):
            message = f"{section}.url holds a password; the registry never holds a secret"
            yield source.finding((section, "url"), "secret-in-registry", message, "write $key:NAME.FIELD for the whole url")
        elif schemes and url != "embedded" and "$key:" not in url and not url.startswith(schemes):
            message = f'{section}.url must be embedded or begin with {" or ".join(schemes)}, found "{url}"'
            yield source.finding((section, "url"), "wrong-url", message)
    if document.storage.backend == "s3" and not document.storage.bucket:
        yield source.finding(("storage",), "missing-field", 'storage lacks the field "bucket", which s3 needs', "add bucket:")
