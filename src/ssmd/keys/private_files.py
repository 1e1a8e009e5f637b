"""Files that hold secrets: written whole or not at all, for their owner alone, never through a symbolic link.

Names come from definitions and command lines, so each is checked to be one plain name: no separator, no "..".
"""

from __future__ import annotations

import os
import re
import secrets
import stat
from contextlib import suppress
from pathlib import Path
from typing import Final

from ssmd.errors import Misconfigured

SIZE_MAX: Final = 64 << 10
"""Bytes of a secret file; a larger one is surely the wrong file."""
_PLAIN_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,200}")


def check_name(name: str) -> str:
    """`name` if it is one plain file name. Raises Misconfigured."""
    if not _PLAIN_NAME.fullmatch(name):
        raise Misconfigured("a key or field is named by letters, digits, _ and - only", mend="mend its definition")
    return name


def inside(root: Path, relative: str, what: str) -> Path:
    """`relative` below `root`, symbolic links followed.

    Raises:
        Misconfigured: it is absolute, or leads out of `root`.
    """
    wanted = Path(relative)
    try:
        resolved = (root / wanted).resolve()
        is_inside = not wanted.is_absolute() and resolved.is_relative_to(root.resolve()) and resolved != root.resolve()
    except (OSError, ValueError, RuntimeError):
        is_inside = False
    if not is_inside:
        raise Misconfigured(f"{what} is {relative!r}, which is not inside the workspace", mend="write a path below it")
    return root / wanted


def write_private(path: Path, payload: bytes, *, mode: int = 0o600) -> None:
    """Put `payload` in place of what `path` holds, atomically and on the disk.

    Raises:
        Misconfigured: it is a symbolic link or a directory, or cannot be written. `payload` is in no message.
    """
    directory, name = path.parent, path.name
    draft = f".{name[:100]}.{secrets.token_hex(8)}"
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700 if mode == 0o600 else 0o755)
        # By the directory's descriptor: whoever swaps the directory meanwhile changes nothing.
        at = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    except (OSError, ValueError) as error:
        raise _cannot("written", path, error) from None
    try:
        with suppress(FileNotFoundError):
            if not stat.S_ISREG(os.stat(name, dir_fd=at, follow_symlinks=False).st_mode):
                raise Misconfigured(f"{path} is no plain file: it is not replaced", mend="name another file, or remove it")
        try:
            descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode, dir_fd=at)
            with os.fdopen(descriptor, "wb") as file:
                os.fchmod(file.fileno(), mode)
                file.write(payload)
                file.flush()
                os.fsync(file.fileno())
            os.replace(draft, name, src_dir_fd=at, dst_dir_fd=at)
            os.fsync(at)
        finally:
            with suppress(FileNotFoundError):
                os.unlink(draft, dir_fd=at)
    except (OSError, ValueError) as error:
        raise _cannot("written", path, error) from None
    finally:
        os.close(at)


def read_private(path: Path) -> bytes | None:
    """What the owner's file `path` holds; None = there is none.

    Raises:
        Misconfigured: it is a symbolic link, no plain file, somebody else's, readable by others, too large or unreadable.
    """
    return _read(path, os.O_NOFOLLOW, 0o077, f"chmod 600 {path}", owner=os.geteuid())


def read_shared(path: Path) -> bytes | None:
    """What `path` holds, links followed and a group allowed, as for what Kubernetes mounts; None = there is none.

    Raises:
        Misconfigured: it is no plain file, readable by everybody, too large or unreadable.
    """
    return _read(path, 0, 0o007, f"chmod 600 {path}, or defaultMode: 0440 of the Secret's volume")


def _read(path: Path, flags: int, forbidden: int, mend: str, *, owner: int | None = None) -> bytes | None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | flags)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise _cannot("read", path, error) from None
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise Misconfigured(f"{path} is no plain file", mend=f"look at {path}")
        if owner is not None and found.st_uid != owner:
            raise Misconfigured(f"{path} belongs to user {found.st_uid}, not to us ({owner})", mend=f"look at {path}")
        if found.st_mode & forbidden:
            whom = "others" if forbidden & 0o070 else "everybody"
            raise Misconfigured(f"{path} can be read by {whom} (mode {found.st_mode & 0o777:03o})", mend=mend)
        payload = b""
        while len(payload) <= SIZE_MAX and (part := os.read(descriptor, SIZE_MAX + 1)):
            payload += part
    except OSError as error:
        raise _cannot("read", path, error) from None
    finally:
        os.close(descriptor)
    if len(payload) > SIZE_MAX:
        raise Misconfigured(f"{path} is larger than {SIZE_MAX} bytes: not a key")
    return payload


def remove_private(path: Path) -> bool:
    """Remove a file (a symbolic link itself, not what it names); whether it was there. Raises Misconfigured."""
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    except (OSError, ValueError) as error:
        raise _cannot("removed", path, error) from None
    return True


def text_of(payload: bytes, where: str) -> str:
    """A secret file's text without one trailing newline.

    Raises:
        Misconfigured: it is empty, or no text; `where` names it, its bytes are in no message.
    """
    try:
        text = payload.decode()
    except UnicodeDecodeError:
        # Not chained: the error would carry the bytes.
        raise Misconfigured(f"{where}, which is not text", mend="store the key as PEM text") from None
    if not text.strip():
        raise Misconfigured(f"{where}, which is empty")
    return text.removesuffix("\n")


def _cannot(what: str, path: Path, error: OSError | ValueError) -> Misconfigured:
    reason = (error.strerror if isinstance(error, OSError) else "") or "not a usable path"
    return Misconfigured(f"{path} cannot be {what}: {reason}", mend=f"check {path.parent}")
