"""Whether the venues and servers that environments name can be reached from here."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping, Sequence
from pathlib import PosixPath
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from ssmd.errors import Misconfigured
from ssmd.identifiers import system_random
from ssmd.keys.source import resolve_key
from ssmd.registry.conversion import Path
from ssmd.registry.documents import EnvironmentDocument
from ssmd.registry.findings import Finding
from ssmd.registry.integrity import KEY_REFERENCE, version_in_force
from ssmd.registry.sources import Source, Sources, read_sources
from ssmd.registry.tree import Tree

CONNECT_TIMEOUT_S: Final = 5.0
AT_ONCE_MAX: Final = 16
_PORTS: Final = {"https": 443, "wss": 443, "http": 80, "ws": 80, "nats": 4222, "tls": 4222, "redis": 6379, "rediss": 6379}
_SECURE: Final = frozenset({"https", "wss", "rediss"})
"""Schemes whose first bytes are TLS; NATS servers speak first, in the clear."""


class _Target(NamedTuple):
    source: Source[EnvironmentDocument]
    at: Path
    what: str
    url: str


async def unreachable(tree: Tree, variables: Mapping[str, str], *, date: str) -> list[Finding]:
    """One finding per url of an active environment to which no connection (with TLS, where the url says so) can be made.

    Embedded servers and the simulator run only with `ssmd up`: they are passed over. A url behind a key without a value is
    a finding of its own; its value is in no message.
    """
    findings: list[Finding] = []
    targets: list[_Target] = []
    sources = read_sources(tree)[0]
    for source in sources.environments.values():
        if source.document.status == "active":
            targets += _venue(source, sources, date)
            for target in _servers(source):
                try:
                    targets.append(target._replace(url=_resolved(target, variables)))
                except Misconfigured as error:
                    findings.append(source.finding(target.at, "no-key-value", f"{target.what}: {error.message}", error.mend))
    return findings + await _tried(targets)


def _venue(source: Source[EnvironmentDocument], sources: Sources, date: str) -> list[_Target]:
    document = source.document
    feed = sources.feeds.get(document.feed)
    version = version_in_force(feed.document, date) if feed else None
    endpoint = version.endpoints.get(document.capture.endpoint) if version else None
    urls = (endpoint.rest, endpoint.websocket) if endpoint else ()
    what = f"endpoint {document.capture.endpoint} of feed {document.feed}"
    return [_Target(source, ("capture", "endpoint"), what, url) for url in urls if url != "simulator"]


def _servers(source: Source[EnvironmentDocument]) -> list[_Target]:
    document = source.document
    sections = (
        ("transport", document.transport.backend == "nats", document.transport.url),
        ("journal", document.journal.backend == "nats", document.journal.url),
        ("cache", document.cache.backend == "redis", document.cache.url),
    )
    return [_Target(source, (name, "url"), name, url) for name, is_server, url in sections if is_server and url != "embedded"]


def _resolved(target: _Target, variables: Mapping[str, str]) -> str:
    match = KEY_REFERENCE.fullmatch(target.url)
    if match is None:
        return target.url
    key = target.source.document.keys.get(match.group(1))
    if key is None or key.source != "env":
        raise Misconfigured(f"{target.url} has no value here")
    fields = resolve_key(match.group(1), key, variables=variables, directory=PosixPath(), random=system_random)
    secret = fields.get(match.group(2) or next(iter(fields), ""))
    if secret is None:
        raise Misconfigured(f"{target.url} has no value here")
    return secret.reveal()


async def _tried(targets: Sequence[_Target]) -> list[Finding]:
    turns = asyncio.Semaphore(AT_ONCE_MAX)
    tried: dict[str, str] = {}

    async def attempt(url: str) -> None:
        async with turns:
            tried[url] = await _complaint(url)

    urls = {part for target in targets for part in target.url.split(",")}
    async with asyncio.TaskGroup() as group:
        for url in sorted(urls):
            group.create_task(attempt(url))
    return [
        target.source.finding(target.at, "unreachable", f"{target.what} is not reached: {complaint}")
        for target in targets
        for url in target.url.split(",")
        if (complaint := tried[url])
    ]


async def _complaint(url: str) -> str:
    """Why no connection can be made, "" = one can."""
    try:
        parts = urlsplit(url.strip())
        host, port = parts.hostname or "", parts.port or _PORTS.get(parts.scheme, 0)
    except ValueError:
        return "its url cannot be read"
    if parts.scheme == "unix":
        connecting = asyncio.open_unix_connection(parts.path)
    elif not host or not port:
        return "its url names no host and port"
    else:
        context = ssl.create_default_context() if parts.scheme in _SECURE else None
        connecting = asyncio.open_connection(host, port, ssl=context)
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            _, writer = await connecting
    except TimeoutError:
        return f"{host}:{port} does not answer within {CONNECT_TIMEOUT_S:g} s"
    except OSError as error:  # refused, unknown host, and every failure of TLS
        return f"{host}:{port}: {error.strerror or error}"
    writer.close()
    return ""
