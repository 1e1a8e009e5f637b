"""Keys with `source: generated`: made once per environment, for venues of our own (the simulator).

One file holds all fields of a key, readable by its owner alone; it appears whole or not at all, and of several processes
that make it at once one wins and all use what it made.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path

import msgspec

from ssmd.errors import Misconfigured
from ssmd.identifiers import RandomBytes
from ssmd.keys.definition import KeyDefinition
from ssmd.keys.private_files import check_name, write_private

RSA_BITS = 2048


def generated_fields(name: str, definition: KeyDefinition, directory: Path, random: RandomBytes) -> dict[str, str]:
    """The fields of key `name`, from `directory`/{name}.json, which is made when it is not there.

    Args:
        random: for names and opaque values; an RSA key draws from the cryptography library's own generator.

    Raises:
        Misconfigured: the file cannot be written, read or understood, or others may read it.
    """
    path = directory / f"{check_name(name)}.json"
    try:
        if path.is_symlink():
            raise Misconfigured(f"{path} is a symbolic link, not a generated key", mend=f"rm {path}; a new key is made")
        if not path.exists():
            _create(path, _new_fields(definition, random))
        mode = path.stat().st_mode & 0o777
        payload = path.read_bytes()
    except OSError as error:
        raise Misconfigured(
            f'generated key "{name}" cannot be kept in {path}: {error.strerror or error}', mend=f"check {directory}"
        ) from error
    if mode & 0o077:
        raise Misconfigured(f"{path} can be read by others (mode {mode:03o})", mend=f"chmod 600 {path}")
    try:
        fields = msgspec.json.decode(payload, type=dict[str, str])
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        # The error is not chained: it may quote the file.
        raise Misconfigured(f"{path} is not a generated key", mend=f"delete {path}; a new key is made") from None
    missing = [field for field in definition.fields if field not in fields]
    if missing:
        raise Misconfigured(f"{path} lacks {', '.join(missing)}", mend=f"delete {path}; a new key is made")
    return {field: fields[field] for field in definition.fields}


def replace_generated(name: str, definition: KeyDefinition, directory: Path, random: RandomBytes) -> dict[str, str]:
    """Other fields in place of those of key `name`. Arguments and errors as `generated_fields`."""
    fields = _new_fields(definition, random)
    write_private(directory / f"{check_name(name)}.json", msgspec.json.encode(fields))
    return fields


def _new_fields(definition: KeyDefinition, random: RandomBytes) -> dict[str, str]:
    if definition.type == "kalshi-api-key":
        return {"api_key": f"generated-{random(16).hex()}", "private_key": _new_rsa_key()}
    return {field: random(32).hex() for field in definition.fields}


def _new_rsa_key() -> str:
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415 - 50 ms that most commands need not spend
    from cryptography.hazmat.primitives.asymmetric import rsa  # noqa: PLC0415

    key = rsa.generate_private_key(public_exponent=65537, key_size=RSA_BITS)
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


def _create(path: Path, fields: dict[str, str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(msgspec.json.encode(fields))
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):  # another process was first: its key is the key
            os.link(draft, path)
    finally:
        draft.unlink(missing_ok=True)
