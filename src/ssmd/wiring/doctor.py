"""`ssmd doctor`: a machine and an environment looked at, each check by itself: what fails stops no other."""

from __future__ import annotations

import shutil
import ssl
from collections.abc import AsyncIterator, Mapping
from typing import Final

from ssmd.clock import Clock
from ssmd.errors import SsmdError
from ssmd.keys.expiry import NOTICE_NS
from ssmd.projections import access, queries
from ssmd.projections.views import PROJECTIONS
from ssmd.services.machine_checks import GIB, Finding, Verdict, check_machine, check_port, existing
from ssmd.settings import Workspace
from ssmd.streams.topology import diff
from ssmd.wiring.backends import open_storage
from ssmd.wiring.components import tls_files
from ssmd.wiring.environment import ResolvedEnvironment
from ssmd.wiring.stream_servers import stream_connections, stream_definitions
from ssmd.wiring.system_status import LAG_MAX_EVENTS, SystemStatus, system_status
from ssmd.wiring.views import asking_views

CERTIFICATE_WARN_NS: Final = 14 * 86_400 * 1_000_000_000


def finding(check: str, verdict: Verdict, found: str, mend: str = "") -> Finding:
    """A finding about the environment."""
    return Finding("environment", check, verdict, found, "" if verdict == "ok" else mend)


def failed(check: str, error: SsmdError) -> Finding:
    """The finding that an error is."""
    return finding(check, "fail", error.message.replace("\n", "; "), error.mend)


async def examine(
    workspace: Workspace, environment: ResolvedEnvironment | SsmdError | None, variables: Mapping[str, str], clock: Clock
) -> list[Finding]:
    """All findings, those of the machine first.

    Args:
        environment: an error = why it cannot be read; None = only the machine is looked at.
    """
    found = check_machine(workspace.state)
    if environment is None:
        return found
    if isinstance(environment, SsmdError):
        return [*found, failed("registry", environment)]
    commit = f", commit {environment.config[:12]}" if environment.config else ", not under git"
    found.append(finding("registry", "ok", f"{environment.name} is valid{commit}"))
    found += [one async for one in _keys(environment, variables, clock)]
    found += await _storage(environment, variables)
    found.append(_tape(environment))
    found += _certificate(environment, clock)
    if environment.run is None and environment.document.gateway.port and environment.is_embedded("transport"):
        found.append(check_port(environment.document.gateway.port, "gateway port"))
    return found + await _live(environment, variables, clock)


async def _keys(environment: ResolvedEnvironment, variables: Mapping[str, str], clock: Clock) -> AsyncIterator[Finding]:
    """Whether every key has a value here, and what the journal knows of its end."""
    ends: dict[str, int] = {}
    wanted = [one for one in PROJECTIONS if one.name == access.KEYS_NAME]
    try:
        async with asking_views(environment, variables, projections=wanted) as views:
            ends = {one.name: one.expires_ns for one in await queries.keys(views) if one.status == "set"}
    except SsmdError:
        pass  # told where servers are looked at; a key can be looked at without
    now_ns = clock.now_ns()
    for name, definition in environment.document.keys.items():
        check, mend = f"key {name}", f"ssmd key rotate {name}"
        end_ns = ends.get(name, 0)
        if definition.source == "generated":
            yield finding(check, "ok", "ssmd makes it")
            continue
        try:
            fields = environment.key(name, variables)
        except SsmdError as error:
            yield failed(check, error)
            continue
        if not fields:
            yield finding(check, "ok", "not set, and not required")
        elif end_ns and end_ns <= now_ns:
            yield finding(check, "fail", "has expired", mend)
        elif end_ns and end_ns < now_ns + NOTICE_NS:
            yield finding(check, "warn", f"expires in {(end_ns - now_ns) // (86_400 * 1_000_000_000)} days", mend)
        else:
            yield finding(check, "ok", f"set ({definition.source})")


async def _storage(environment: ResolvedEnvironment, variables: Mapping[str, str]) -> list[Finding]:
    backend = environment.document.storage.backend
    if backend == "local" and not environment.archive_directory.is_dir():
        return [finding("storage", "ok", "local: made by the first ssmd up")]
    try:
        storage = open_storage(environment, variables)
        try:
            await storage.check()
        finally:
            await storage.close()
    except SsmdError as error:
        return [failed("storage", error)]
    return [finding("storage", "ok", f"{backend}: can be written, conditionally")]


def _tape(environment: ResolvedEnvironment) -> Finding:
    """Whether the tape has room for what it may grow to."""
    place = existing(environment.directory)
    free, bound = shutil.disk_usage(place).free, environment.document.tape.bytes_max
    tape = environment.directory / "tape"
    held = sum(path.stat().st_size for path in tape.rglob("*") if path.is_file()) if tape.is_dir() else 0
    found = f"holds {held / GIB:.1f} of {bound / GIB:.1f} GiB, {free / GIB:.1f} GiB free"
    if free + held < bound // 8:
        return finding("tape disk", "fail", found, "make room: where the disk is full capture stops")
    verdict: Verdict = "ok" if free + held >= bound else "warn"
    return finding("tape disk", verdict, found, "set tape.bytes_max to what the disk has, or make room")


def _certificate(environment: ResolvedEnvironment, clock: Clock) -> list[Finding]:
    """The gateway's certificate, where it has one."""
    try:
        files = tls_files(environment)
        if files is None:
            return []
        from cryptography import x509  # noqa: PLC0415 - most environments have no certificate

        certificate = x509.load_pem_x509_certificate(files.certificate.read_bytes())
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(files.certificate, files.key)
    except SsmdError as error:
        return [failed("certificate", error)]
    except (OSError, ValueError) as error:
        return [
            finding("certificate", "fail", f"cannot be used: {error}", "correct gateway.tls_certificate and gateway.tls_key")
        ]
    left_ns = int(certificate.not_valid_after_utc.timestamp()) * 1_000_000_000 - clock.now_ns()
    days = left_ns // (86_400 * 1_000_000_000)
    if left_ns <= 0:
        return [finding("certificate", "fail", f"ended {-days} days ago", "renew it, then restart the gateway")]
    verdict: Verdict = "ok" if left_ns > CERTIFICATE_WARN_NS else "warn"
    return [finding("certificate", verdict, f"good for {days} days", "renew it, then restart the gateway")]


async def _live(environment: ResolvedEnvironment, variables: Mapping[str, str], clock: Clock) -> list[Finding]:
    """Servers, streams, components and lag: of an environment that runs, or whose servers are elsewhere."""
    embedded = environment.is_embedded("transport") and environment.is_embedded("journal")
    if embedded and environment.run is None:
        return [finding("servers", "ok", f"embedded, off: ssmd up {environment.name} starts them")]
    status = await system_status(environment, variables, clock)
    found = [
        finding(f"server {one.name}", "ok", one.url or one.reason)
        if one.ok
        else finding(f"server {one.name}", "fail", f"{one.url}: {one.reason}", "start it, or correct its url")
        for one in status.servers
    ]
    if all(one.ok for one in status.servers):
        found.append(await _streams(environment, variables))
    return found + _components(status)


def _components(status: SystemStatus) -> list[Finding]:
    found = []
    for one in status.services:
        name = f"{one.component} {one.instance}"
        lag = one.stats.get("lag", 0)
        if one.state in {"missing", "trouble"}:
            found.append(
                finding(name, "fail", one.reason or one.state, f"read its log; ssmd {one.component.split('-')[-1]} --help")
            )
        elif isinstance(lag, int) and lag > LAG_MAX_EVENTS:
            found.append(finding(name, "warn", f"{lag} events behind", "ssmd projection status"))
        else:
            found.append(finding(name, "ok", one.reason or one.state))
    return found


async def _streams(environment: ResolvedEnvironment, variables: Mapping[str, str]) -> Finding:
    wanted = stream_definitions(environment)
    try:
        async with stream_connections(environment, variables, wanted) as connections:
            differences = await diff(connections, wanted)
    except SsmdError as error:
        return failed("streams", error)
    told = ", ".join(f"{one.stream} {one.field or 'is missing'}" for one in differences[:5])
    return finding("streams", "fail" if differences else "ok", told or f"{len(wanted)} as defined", "ssmd streams apply")


def status_of(findings: list[Finding]) -> int:
    """0 all ok, 1 warnings, 2 something fails."""
    verdicts = {one.verdict for one in findings}
    return 2 if "fail" in verdicts else 1 if "warn" in verdicts else 0
