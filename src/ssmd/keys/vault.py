"""Keys with `source: vault`: HashiCorp Vault, through its client. The home of hvac (the extra `vault`).

A key is one secret of a key-value engine, version 2; its fields are the secret's. Calls block: at most TIMEOUT_S each.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from ssmd.errors import Misconfigured, Unavailable
from ssmd.keys.definition import VaultSettings
from ssmd.keys.private_files import text_of
from ssmd.keys.secret import Secret

TIMEOUT_S: Final = 10
TOKEN_VARIABLE: Final = "SSMD_VAULT_TOKEN"  # noqa: S105 - the name of a variable
_ACCOUNT_TOKEN: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")


class VaultStore:
    """One key in Vault. Nothing is connected before it is used."""

    def __init__(self, name: str, settings: VaultSettings, variables: Mapping[str, str]) -> None:
        self._name = name
        self._settings = settings
        self._variables = variables

    def read(self) -> dict[str, Secret] | None:
        """The fields, None = not set. Raises Misconfigured, Unavailable."""
        answer = self._ask(
            lambda kv: kv.read_secret_version(
                path=self._settings.path, mount_point=self._settings.mount, raise_on_deleted_version=True
            )
        )
        if answer is None:
            return None
        found = answer.get("data", {}).get("data") if isinstance(answer, dict) else None
        if not isinstance(found, dict) or not all(isinstance(text, str) for text in found.values()):
            raise Misconfigured(
                f"{self._where} does not hold texts by name, so it is no key", mend=f"ssmd key set {self._name}"
            )
        return {str(field): Secret(text) for field, text in found.items()}

    def write(self, fields: Mapping[str, Secret]) -> None:
        """A new version of the secret. Raises Misconfigured, Unavailable."""
        plain = {field: value.reveal() for field, value in fields.items()}
        self._ask(
            lambda kv: kv.create_or_update_secret(path=self._settings.path, mount_point=self._settings.mount, secret=plain)
        )

    def delete(self) -> bool:
        """Remove the secret with all its versions; whether it was there. Raises Misconfigured, Unavailable."""
        is_there = self.read() is not None
        self._ask(lambda kv: kv.delete_metadata_and_all_versions(path=self._settings.path, mount_point=self._settings.mount))
        return is_there

    @property
    def _where(self) -> str:
        return f"{self._settings.mount}/{self._settings.path} of the Vault at {self._settings.url}"

    def _ask(self, question: Any) -> Any:
        """Vault's answer, None = there is no such secret."""
        try:
            import hvac  # noqa: PLC0415 - an extra
            import hvac.exceptions  # noqa: PLC0415
            import requests  # noqa: PLC0415 - what hvac talks with
        except ImportError:
            raise Misconfigured("keys in Vault need the client of Vault", mend="pip install 'ssmd[vault]'") from None
        try:
            client = hvac.Client(url=self._settings.url, timeout=TIMEOUT_S, allow_redirects=False)
            # Set, not left out: hvac would look for a token of its own.
            client.token = "" if self._settings.role else self._token()
            if self._settings.role:
                client.auth.kubernetes.login(role=self._settings.role, jwt=self._account_token())
            return question(client.secrets.kv.v2)
        except hvac.exceptions.InvalidPath:
            return None
        except (hvac.exceptions.Forbidden, hvac.exceptions.Unauthorized):
            # Nothing of Vault's or requests' own words is passed on: they may quote what was sent.
            raise Misconfigured(
                f"we may not use {self._where}", mend=f"check {TOKEN_VARIABLE}_FILE, or vault.role of key {self._name}"
            ) from None
        except (hvac.exceptions.VaultError, requests.RequestException, ValueError) as error:
            raise Unavailable(
                f"no answer of use from {self._where}: {type(error).__name__}", mend=f"check vault.url of key {self._name}"
            ) from None

    def _token(self) -> str:
        given = self._variables.get(TOKEN_VARIABLE, "")
        file = self._variables.get(f"{TOKEN_VARIABLE}_FILE", "")
        if given:
            return given
        if not file:
            raise Misconfigured(
                f"Vault needs a token: {TOKEN_VARIABLE}_FILE is not set", mend=f"export {TOKEN_VARIABLE}_FILE=PATH"
            )
        return _text_in(Path(file), f"{TOKEN_VARIABLE}_FILE names {file}")

    @staticmethod
    def _account_token() -> str:
        return _text_in(_ACCOUNT_TOKEN, f"the service account's token is in {_ACCOUNT_TOKEN}")


def _text_in(path: Path, where: str) -> str:
    try:
        with path.open("rb") as file:
            return text_of(file.read(1 << 16), where).strip()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a usable path"
        raise Misconfigured(f"{where}, which cannot be read: {reason}", mend="check the path") from None
