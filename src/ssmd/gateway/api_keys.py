"""API keys as clients hold them, and what a gateway compares: `ssmd_{id}_{secret}`, of which only a hash is kept. Pure.

The secret is 256 random bits, so a plain SHA-256 of the key cannot be searched; a slow hash would only slow the gateway.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from typing import Final, NamedTuple

from ssmd.domain.client import Mode, State
from ssmd.errors import Rejected
from ssmd.identifiers import RandomBytes

SCOPES: Final = {
    "stream": "the WebSocket",
    "markets": "prices, books, trades and candles over REST",
    "records": "days, history, inventory, gaps, captures and status over REST",
}
"""Scope -> what it opens."""

_KEY: Final = re.compile(r"ssmd_([a-z2-7]{12})_([A-Za-z0-9_-]{43})")
_NOBODY: Final = "0" * 64


class Grant(NamedTuple):
    """What the holder of a key may do. `requests_per_s`, `connections_max`: 0 = the gateway's default."""

    client_id: str
    name: str
    scopes: frozenset[str]
    feeds: tuple[str, ...]
    expires_ns: int
    requests_per_s: int
    connections_max: int
    mode: Mode


ANYONE: Final = Grant("", "anyone on this machine", frozenset(SCOPES), (), 0, 0, 0, "realtime")
"""Where no keys are asked for."""


class NewKey(NamedTuple):
    """`text` is shown once, to whoever asked for it; `fingerprint` is what is kept."""

    client_id: str
    text: str
    fingerprint: str


def make_key(random: RandomBytes) -> NewKey:
    """A new key."""
    client_id = base64.b32encode(random(8)).decode().lower()[:12]
    text = f"ssmd_{client_id}_{base64.urlsafe_b64encode(random(32)).decode().rstrip('=')}"
    return NewKey(client_id, text, fingerprint_of(text))


def fingerprint_of(text: str) -> str:
    """SHA-256 of a key, in hex."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def client_id_of(text: str) -> str:
    """The id in a key, "" where the text is none."""
    match = _KEY.fullmatch(text)
    return "" if match is None else match.group(1)


def grant_of(text: str, state: State | None, now_ns: int) -> Grant:
    """What `text` grants, `state` being that of the client whose id it has (None = there is none).

    The hash is computed and compared in any case, in constant time: how long it takes says nothing.

    Raises:
        Rejected: key-invalid; to who proves to have held the key: key-expired, key-revoked.
    """
    created = None if state is None else state.created
    expected = _NOBODY if created is None else created.fingerprint
    is_right = hmac.compare_digest(fingerprint_of(text), expected)
    client_id = client_id_of(text)
    if not is_right or state is None or created is None or not client_id:
        raise Rejected("key-invalid", "this API key is not known here", mend="ssmd client create")
    check_usable(state, now_ns)
    return grant_to(client_id, state)


def check_usable(state: State, now_ns: int) -> None:
    """Refuse a client that may not ask any more.

    Raises:
        Rejected: key-expired, key-revoked.
    """
    if state.is_revoked or state.is_deleted:
        raise Rejected("key-revoked", "this API key was revoked", mend="ssmd client create")
    if state.created is not None and 0 < state.created.expires_ns <= now_ns:
        raise Rejected("key-expired", "this API key has expired", mend="ssmd client create")


def grant_to(client_id: str, state: State) -> Grant:
    """What a client may do."""
    created = state.created
    if created is None:
        raise ValueError(f"client {client_id} was never created")
    return Grant(
        client_id,
        created.name,
        frozenset(created.scopes),
        created.feeds,
        created.expires_ns,
        created.requests_per_s,
        created.connections_max,
        created.mode,
    )


def check_allows(grant: Grant, scope: str, feed: str) -> None:
    """Refuse what is not granted.

    Raises:
        Rejected: scope-missing, feed-forbidden.
    """
    if grant.feeds and feed not in grant.feeds:
        raise Rejected("feed-forbidden", "this API key is not for this gateway's feed")
    if scope and scope not in grant.scopes:
        raise Rejected("scope-missing", f'this API key lacks the scope "{scope}"', mend="ssmd client create --scope ...")
