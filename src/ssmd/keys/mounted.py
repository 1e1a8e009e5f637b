"""Keys as directories of field files: what Kubernetes mounts for a Secret, or an operator keeps by hand.

Kubernetes swaps all files of a mounted Secret at once, by a link named ..data. Fields are read behind one reading of
that link, so that never one field is old and another new.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from ssmd.errors import Misconfigured
from ssmd.keys.private_files import check_name, read_shared, remove_private, text_of, write_private
from ssmd.keys.secret import Secret

DEFAULT_ROOT: Final = Path("/etc/ssmd/keys")
_LINK: Final = "..data"
_ATTEMPTS: Final = 3


def directory_of(name: str, path: str, root: Path) -> Path:
    """Where key `name` is: `path`, relative to the workspace `root` or absolute; "" = the default."""
    return root / path if path else DEFAULT_ROOT / check_name(name)


def read_mounted(directory: Path, fields: tuple[str, ...]) -> dict[str, Secret]:
    """The fields whose files are in `directory`; {} = none is.

    Raises:
        Misconfigured: a file cannot be read, is readable by everybody, is too large, empty or no text.
    """
    for attempt in range(_ATTEMPTS):
        at = directory
        with suppress(OSError):  # no mount of Kubernetes
            at = directory / (directory / _LINK).readlink()
        found = {field: payload for field in fields if (payload := read_shared(at / check_name(field))) is not None}
        if len(found) == len(fields) or at == directory or at.is_dir() or attempt == _ATTEMPTS - 1:
            break
    return {field: Secret(text_of(payload, f"{directory / field} should hold a field")) for field, payload in found.items()}


def write_mounted(directory: Path, fields: Mapping[str, Secret]) -> None:
    """Write each field's file, 0600. Raises Misconfigured: not for what Kubernetes mounted, it is read-only."""
    if (directory / _LINK).is_symlink():
        raise Misconfigured(
            f"{directory} is mounted by Kubernetes, where nothing can be written", mend="set the Secret instead"
        )
    for field, value in fields.items():
        write_private(directory / check_name(field), value.reveal().encode())


def delete_mounted(directory: Path, fields: tuple[str, ...]) -> bool:
    """Remove the field files; whether any was there. Raises Misconfigured."""
    return sum(remove_private(directory / check_name(field)) for field in fields) > 0
