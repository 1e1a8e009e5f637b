"""One key where it is kept: read, written, deleted, as far as its source can be.

source          read from                              written by ssmd
env             variables, files they name             never: whoever starts the process sets them
generated       .ssmd/{env}/keys/{key}.json            made when first read; `rotate` makes another
local           .ssmd/{env}/keys/local/{key}.json      yes, encrypted
file            a directory of field files             yes
sealed-secret   a directory that Kubernetes mounts     a SealedSecret; the cluster puts it there
vault           HashiCorp Vault                        yes
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

from ssmd.errors import Misconfigured, Rejected
from ssmd.identifiers import RandomBytes
from ssmd.keys.definition import KeyDefinition
from ssmd.keys.generated import generated_fields, replace_generated
from ssmd.keys.local_store import LocalStore, passphrase
from ssmd.keys.mounted import delete_mounted, directory_of, read_mounted, write_mounted
from ssmd.keys.private_files import inside, remove_private, write_private
from ssmd.keys.sealing import SealedName, load_certificate, manifest_text, sealed_secret
from ssmd.keys.secret import Secret
from ssmd.keys.variables import read_variables, variable_of
from ssmd.keys.vault import VaultStore

CERTIFICATE_BYTES_MAX: Final = 64 << 10


class KeyPlaces(NamedTuple):
    """What one environment's keys are found by.

    Attributes:
        root: the workspace; state: its .ssmd; directory: .ssmd/{env}/keys.
        variables: `settings.variables()`.
    """

    env: str
    root: Path
    state: Path
    directory: Path
    variables: Mapping[str, str]
    random: RandomBytes


class KeyStore:
    """See the module. All methods block; those of source vault for seconds."""

    def __init__(self, name: str, definition: KeyDefinition, places: KeyPlaces) -> None:
        self._name = name
        self._definition = definition
        self._places = places

    @property
    def where(self) -> str:
        """The place in words; never a value."""
        definition, places = self._definition, self._places
        match definition.source:
            case "env":
                return ", ".join(variable_of(self._name, field) for field in definition.fields)
            case "generated":
                return str(places.directory / f"{self._name}.json")
            case "local":
                return str(self._local("").path(self._name))
            case "vault":
                return f"{definition.vault.url} {definition.vault.mount}/{definition.vault.path}"
            case _:
                return str(self._mount)

    def read(self) -> dict[str, Secret]:
        """The fields that have a value, {} = none has. A generated key is made.

        Raises:
            Misconfigured: it cannot be read, or not understood.
            Unavailable: Vault did not answer.
        """
        definition, places = self._definition, self._places
        match definition.source:
            case "env":
                return read_variables(self._name, definition.fields, places.variables)
            case "generated":
                made = generated_fields(self._name, definition, places.directory, places.random)
                return {field: Secret(text) for field, text in made.items()}
            case "local":
                locked = passphrase(places.variables, places.state)
                return self._local(locked).read(self._name) or {}
            case "vault":
                return self._vault.read() or {}
            case _:
                return read_mounted(self._mount, definition.fields)

    def write(self, fields: Mapping[str, Secret], now_ns: int) -> str:
        """Put `fields` in place of what is there; where they went.

        Raises:
            Rejected: the source is not ours to write.
            Misconfigured, Unavailable: it cannot be written; what was there stays.
        """
        definition, places = self._definition, self._places
        match definition.source:
            case "env":
                mend = f"export {variable_of(self._name, definition.fields[0])}_FILE=PATH where the process is started"
                raise Rejected("key-not-ours", f'key "{self._name}" comes from variables: ssmd cannot set them', mend=mend)
            case "generated":
                raise Rejected("key-not-ours", f'key "{self._name}" is generated', mend=f"ssmd key rotate {self._name}")
            case "local":
                self._local(passphrase(places.variables, places.state)).write(self._name, fields)
            case "file":
                write_mounted(self._mount, fields)
            case "sealed-secret":
                return str(self._seal(fields, now_ns))
            case "vault":
                self._vault.write(fields)
        return self.where

    def regenerate(self) -> dict[str, Secret]:
        """Another value of a generated key. Raises Rejected: it is not generated; Misconfigured."""
        if self._definition.source != "generated":
            raise Rejected("key-not-generated", f'key "{self._name}" is not generated: give its new value')
        made = replace_generated(self._name, self._definition, self._places.directory, self._places.random)
        return {field: Secret(text) for field, text in made.items()}

    def delete(self) -> bool:
        """Remove the value; whether there was one. Raises Rejected: not ours; Misconfigured, Unavailable."""
        definition, places = self._definition, self._places
        match definition.source:
            case "env":
                raise Rejected("key-not-ours", f'key "{self._name}" comes from variables: unset them where they are set')
            case "generated":
                return remove_private(places.directory / f"{self._name}.json")
            case "local":
                return self._local("").delete(self._name)
            case "file":
                return delete_mounted(self._mount, definition.fields)
            case "sealed-secret":
                return remove_private(self.manifest)
            case _:
                return self._vault.delete()

    @property
    def manifest(self) -> Path:
        """The SealedSecret's file. Raises Misconfigured: it is not inside the workspace."""
        return inside(self._places.root, self._definition.sealed_secret.manifest, f"sealed_secret.manifest of {self._name}")

    @property
    def _mount(self) -> Path:
        return directory_of(self._name, self._definition.path, self._places.root)

    @property
    def _vault(self) -> VaultStore:
        return VaultStore(self._name, self._definition.vault, self._places.variables)

    def _local(self, locked: str) -> LocalStore:
        return LocalStore(self._places.env, self._places.directory, locked, self._places.random)

    def _seal(self, fields: Mapping[str, Secret], now_ns: int) -> Path:
        settings, places = self._definition.sealed_secret, self._places
        certificate = inside(places.root, settings.certificate, f"sealed_secret.certificate of {self._name}")
        return write_sealed(
            SealedName(settings.name, settings.namespace, settings.scope),
            fields,
            certificate,
            self.manifest,
            now_ns,
            places.random,
        )


def write_sealed(
    name: SealedName, fields: Mapping[str, Secret], certificate: Path, manifest: Path, now_ns: int, random: RandomBytes
) -> Path:
    """Write the SealedSecret of `fields` to `manifest`, which may stand in git.

    Raises:
        Misconfigured, Malformed: the certificate cannot be used, or the file not be written.
    """
    try:
        with certificate.open("rb") as file:
            pem = file.read(CERTIFICATE_BYTES_MAX)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a usable path"
        raise Misconfigured(
            f"the cluster's certificate {certificate} cannot be read: {reason}", mend=f"kubeseal --fetch-cert > {certificate}"
        ) from None
    document = sealed_secret(name, fields, load_certificate(pem, now_ns), random)
    heading = "# Written by `ssmd key`. Only the cluster's controller can open it.\n"
    write_private(manifest, manifest_text(document, heading).encode(), mode=0o644)
    return manifest
