"""What `keys` must know of a key; the registry's `KeyDefinition` has this shape."""

from __future__ import annotations

from typing import Protocol


class SealedSecretSettings(Protocol):
    """The SealedSecret that is written for a key."""

    @property
    def name(self) -> str: ...

    @property
    def namespace(self) -> str: ...

    @property
    def scope(self) -> str:
        """One of strict | namespace-wide | cluster-wide."""
        ...

    @property
    def certificate(self) -> str:
        """The cluster's certificate (PEM), relative to the workspace."""
        ...

    @property
    def manifest(self) -> str:
        """The file that is written, relative to the workspace."""
        ...


class VaultSettings(Protocol):
    """Where HashiCorp Vault keeps a key."""

    @property
    def url(self) -> str: ...

    @property
    def mount(self) -> str: ...

    @property
    def path(self) -> str: ...

    @property
    def role(self) -> str:
        """Of Vault's kubernetes auth; "" = a token is given."""
        ...


class KeyDefinition(Protocol):
    """A key as an environment defines it: never a value."""

    @property
    def type(self) -> str:
        """kalshi-api-key | opaque."""
        ...

    @property
    def fields(self) -> tuple[str, ...]: ...

    @property
    def required(self) -> bool: ...

    @property
    def rotation_days(self) -> int:
        """0 = never."""
        ...

    @property
    def source(self) -> str:
        """One of env | generated | local | file | sealed-secret | vault."""
        ...

    @property
    def path(self) -> str:
        """Of sources file and sealed-secret: the directory of the field files; "" = /etc/ssmd/keys/{key}."""
        ...

    @property
    def sealed_secret(self) -> SealedSecretSettings: ...

    @property
    def vault(self) -> VaultSettings: ...
