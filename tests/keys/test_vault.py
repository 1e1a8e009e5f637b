"""Keys in Vault through its real client, against a key-value engine (version 2) as its HTTP API describes it."""

import json
import threading
import traceback
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from ssmd.errors import Misconfigured, Unavailable
from ssmd.identifiers import system_random
from ssmd.keys.secret import Secret
from ssmd.keys.store import KeyPlaces, KeyStore
from ssmd.registry.documents import KeyDefinition, VaultSettings

TOKEN = "s.planted-vault-token"
WRONG = "s.wrong-secret"
VALUE = "hunter2"


class _Vault(ThreadingHTTPServer):
    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.secrets: dict[str, dict[str, Any]] = {}
        self.broken = False


class _Handler(BaseHTTPRequestHandler):
    server: _Vault

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
        pass

    def _answer(self, status: int, body: object) -> None:
        payload = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)

    def _serve(self) -> None:
        size = int(self.headers.get("Content-Length", 0))
        body = json.loads(self.rfile.read(size) or b"{}")
        if self.server.broken:
            self._answer(500, {"errors": [f"internal error near {body}"]})
            return
        if self.headers.get("X-Vault-Token") != TOKEN:
            self._answer(403, {"errors": [f"permission denied for {self.headers.get('X-Vault-Token')}"]})
            return
        secrets = self.server.secrets
        match self.command, self.path.removeprefix("/v1/").split("/", 2):
            case "GET", ["kv", "data", path]:
                found = path in secrets
                self._answer(200 if found else 404, {"data": {"data": secrets.get(path)}} if found else {"errors": []})
            case (("POST" | "PUT"), ["kv", "data", path]):
                secrets[path] = body["data"]
                self._answer(200, {"data": {"version": 1}})
            case "DELETE", ["kv", "metadata", path]:
                secrets.pop(path, None)
                self._answer(204, {})
            case _:
                self._answer(405, {"errors": ["unsupported"]})

    do_GET = do_POST = do_PUT = do_DELETE = _serve  # noqa: N815 - the library's names


@pytest.fixture
def vault() -> Iterator[_Vault]:
    server = _Vault()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join(timeout=10)
    server.server_close()


def store_at(url: str, variables: dict[str, str], role: str = "") -> KeyStore:
    settings = VaultSettings(url=url, mount="kv", path="ssmd/kalshi", role=role)
    definition = KeyDefinition(type="opaque", fields=("token",), source="vault", vault=settings)
    return KeyStore("k", definition, KeyPlaces("e", Path(), Path(), Path(), variables, system_random))


def url_of(vault: _Vault) -> str:
    return f"http://127.0.0.1:{vault.server_port}"


def test_a_key_in_vault_is_set_read_and_deleted(vault: _Vault, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    store = store_at(url_of(vault), {"SSMD_VAULT_TOKEN_FILE": str(tmp_path / "token")})
    assert store.read() == {}
    store.write({"token": Secret(VALUE)}, 0)
    assert vault.secrets == {"ssmd/kalshi": {"token": "hunter2"}}
    assert store.read() == {"token": Secret(VALUE)}
    assert (store.delete(), store.delete(), store.read()) == (True, False, {})


def test_no_word_of_vault_or_of_ours_reaches_an_error(vault: _Vault, monkeypatch: pytest.MonkeyPatch) -> None:
    # The client would take these by itself.
    monkeypatch.setenv("VAULT_TOKEN", TOKEN)
    with pytest.raises(Misconfigured, match="SSMD_VAULT_TOKEN_FILE is not set") as missing:
        store_at(url_of(vault), {}).read()
    with pytest.raises(Misconfigured, match="may not use kv/ssmd/kalshi") as denied:
        store_at(url_of(vault), {"SSMD_VAULT_TOKEN": WRONG}).write({"token": Secret(VALUE)}, 0)
    vault.broken = True
    with pytest.raises(Unavailable, match="no answer of use") as broken:
        store_at(url_of(vault), {"SSMD_VAULT_TOKEN": TOKEN}).write({"token": Secret(VALUE)}, 0)
    with pytest.raises(Unavailable, match="no answer of use") as away:
        store_at("http://127.0.0.1:1", {"SSMD_VAULT_TOKEN": TOKEN}).read()
    with pytest.raises(Misconfigured, match="service account's token"):
        store_at(url_of(vault), {}, role="ssmd").read()
    # The lines of this file are in a traceback too: they name the values, they do not hold them.
    shown = "".join(line for caught in (missing, denied, broken, away) for line in traceback.format_exception(caught.value))
    assert not [word for word in (VALUE, WRONG, TOKEN) if word in shown]


def test_what_is_no_key_is_refused(vault: _Vault) -> None:
    vault.secrets["ssmd/kalshi"] = {"token": {"nested": 1}}
    with pytest.raises(Misconfigured, match="so it is no key"):
        store_at(url_of(vault), {"SSMD_VAULT_TOKEN": TOKEN}).read()
