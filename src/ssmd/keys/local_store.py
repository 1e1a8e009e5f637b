"""Keys with `source: local`: encrypted files below .ssmd/{env}/keys/local, one a key.

A file is JSON: {"version": 1, "salt", "nonce", "box"}, the last three in base64. `box` is AES-256-GCM over the fields
as JSON; its key is scrypt(passphrase, salt); environment and key name are authenticated with it, so that a file put in
the place of another opens nothing. The passphrase is the first of

    SSMD_KEYS_PASSPHRASE, SSMD_KEYS_PASSPHRASE_FILE      given
    .ssmd/keys.passphrase                                256 random bits, 0600, made by `ssmd key init`

A passphrase beside the store keeps secrets out of copies and backups of .ssmd/{env}, not from who reads all of the disk.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import msgspec

from ssmd.errors import Misconfigured
from ssmd.identifiers import RandomBytes
from ssmd.keys.private_files import SIZE_MAX, check_name, read_private, remove_private, text_of, write_private
from ssmd.keys.secret import Secret

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

PASSPHRASE_FILE: Final = "keys.passphrase"  # noqa: S105 - the name of a file
PASSPHRASE_VARIABLE: Final = "SSMD_KEYS_PASSPHRASE"  # noqa: S105 - the name of a variable
PASSPHRASE_MIN: Final = 12
_SALT_BYTES: Final = 16
_NONCE_BYTES: Final = 12
_Base64 = Annotated[bytes, msgspec.Meta(max_length=SIZE_MAX)]


class _Sealed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    version: int
    salt: _Base64
    nonce: _Base64
    box: _Base64


def passphrase(variables: Mapping[str, str], state: Path) -> str:
    """The store's passphrase; "" = there is none yet. `state`: the workspace's .ssmd.

    Raises:
        Misconfigured: it is given twice, cannot be read, or is too short.
    """
    given, file = variables.get(PASSPHRASE_VARIABLE), variables.get(f"{PASSPHRASE_VARIABLE}_FILE")
    if given is not None and file is not None:
        raise Misconfigured(f"{PASSPHRASE_VARIABLE} and {PASSPHRASE_VARIABLE}_FILE are both set: which one holds?")
    if given is None:
        path = Path(file) if file else state / PASSPHRASE_FILE
        payload = read_private(path)
        if payload is None:
            if file:
                raise Misconfigured(f"{PASSPHRASE_VARIABLE}_FILE names {file}, which is not there", mend="check the path")
            return ""
        given = text_of(payload, f"the passphrase is in {path}")
    if len(given) < PASSPHRASE_MIN:
        raise Misconfigured(f"the passphrase of the key store is shorter than {PASSPHRASE_MIN} characters")
    return given


def make_passphrase(state: Path, random: RandomBytes) -> Path:
    """A fresh passphrase file. Not to be called where there is one: what it locks would be lost."""
    path = state / PASSPHRASE_FILE
    write_private(path, f"{random(32).hex()}\n".encode())
    return path


class LocalStore:
    """One environment's encrypted keys. `directory`: .ssmd/{env}/keys."""

    def __init__(self, env: str, directory: Path, passphrase: str, random: RandomBytes) -> None:
        self._env = env
        self._directory = directory / "local"
        self._passphrase = passphrase
        self._random = random

    def path(self, name: str) -> Path:
        """The file of key `name`."""
        return self._directory / f"{check_name(name)}.json"

    def read(self, name: str) -> dict[str, Secret] | None:
        """The fields of key `name`, None = not set.

        Raises:
            Misconfigured: the file cannot be read, is damaged, or the passphrase is another one.
        """
        payload = read_private(self.path(name))
        if payload is None:
            return None
        try:
            sealed = msgspec.json.decode(payload, type=_Sealed)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            sealed = None
        if sealed is None or sealed.version != 1 or len(sealed.salt) != _SALT_BYTES or len(sealed.nonce) != _NONCE_BYTES:
            raise Misconfigured(f"{self.path(name)} is no key of this version of ssmd", mend=f"ssmd key set {name}")
        from cryptography.exceptions import InvalidTag  # noqa: PLC0415 - 50 ms that most commands need not spend

        try:
            opened = self._cipher(sealed.salt).decrypt(sealed.nonce, sealed.box, self._bound(name))
            fields = msgspec.json.decode(opened, type=dict[str, str])
        except (InvalidTag, ValueError, msgspec.DecodeError):
            # Not chained: the text of a decoding error may quote what was decoded.
            raise Misconfigured(
                f"{self.path(name)} does not open: it is damaged, or was locked with another passphrase",
                mend=f"check {PASSPHRASE_VARIABLE}_FILE, or ssmd key set {name}",
            ) from None
        return {field: Secret(text) for field, text in fields.items()}

    def write(self, name: str, fields: Mapping[str, Secret]) -> None:
        """Put the fields of key `name` in place of what is there. Raises Misconfigured."""
        salt, nonce = self._random(_SALT_BYTES), self._random(_NONCE_BYTES)
        plain = msgspec.json.encode({field: value.reveal() for field, value in fields.items()})
        box = self._cipher(salt).encrypt(nonce, plain, self._bound(name))
        write_private(self.path(name), msgspec.json.encode(_Sealed(1, salt, nonce, box)) + b"\n")

    def delete(self, name: str) -> bool:
        """Remove key `name`; whether it was there. Raises Misconfigured."""
        return remove_private(self.path(name))

    def _bound(self, name: str) -> bytes:
        return f"ssmd-key:1:{self._env}:{name}".encode()

    def _cipher(self, salt: bytes) -> AESGCM:
        from cryptography.hazmat.primitives.ciphers import aead  # noqa: PLC0415 - as above

        if not self._passphrase:
            raise Misconfigured(
                "the key store has no passphrase", mend=f"ssmd key init, or export {PASSPHRASE_VARIABLE}_FILE=PATH"
            )
        key = hashlib.scrypt(
            self._passphrase.encode(), salt=salt, n=1 << 15, r=8, p=1, maxmem=64 << 20, dklen=32
        )  # 32 MiB a guess
        return aead.AESGCM(key)
