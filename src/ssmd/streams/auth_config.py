"""Accounts and users of a NATS server as its configuration: one account per environment, one user per role.

It names public keys only, so it may stand in git. What one account does the others do not see, though they share a server.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ssmd.streams.nkeys import inbox_of
from ssmd.streams.permissions import RESPONSE_S, Endpoint, permissions


def account(env: str, feed: str, endpoint: Endpoint, users: Mapping[str, str]) -> dict[str, Any]:
    """The account of `env` at one server.

    Args:
        users: public key by role.
    """
    entries = []
    for role, public in users.items():
        allowed = permissions(env, feed, role, endpoint, inbox_of(public))
        entries.append(
            {
                "nkey": public,
                "permissions": {
                    "publish": {"allow": list(allowed.publish)},
                    "subscribe": {"allow": list(allowed.subscribe)},
                    "allow_responses": {"max": 1, "expires": f"{RESPONSE_S}s"},
                },
            }
        )
    return {"jetstream": "enabled", "users": entries}


def server_config(accounts: Mapping[str, Mapping[str, Any]]) -> str:
    """Text to be included in a server's configuration. `accounts`: by environment."""
    body = json.dumps(accounts, indent=2)
    return f"# Made by `ssmd streams auth`. It holds public keys only.\naccounts: {body}\n"
