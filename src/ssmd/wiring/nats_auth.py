"""`ssmd streams auth`: a key pair for each component, and what the NATS servers must know of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from ssmd.identifiers import RandomBytes
from ssmd.keys.private_files import check_name, read_private, text_of, write_private
from ssmd.streams.auth_config import account, server_config
from ssmd.streams.nkeys import new_seed, user_key
from ssmd.streams.permissions import ROLES, Endpoint
from ssmd.wiring.environment import ResolvedEnvironment

DIRECTORY: Final = "nats"
ENDPOINTS: Final[tuple[Endpoint, ...]] = ("journal", "transport")


class AuthUser(NamedTuple):
    """One role of one environment. `is_new`: its key pair was made now."""

    environment: str
    role: str
    public: str
    seed_file: str
    is_new: bool


def auth_users(environment: ResolvedEnvironment, random: RandomBytes, *, rotate: Sequence[str] = ()) -> list[AuthUser]:
    """Every role's key pair; those that are not there, or in `rotate`, are made (seeds 0600 in .ssmd/{env}/keys/nats).

    Raises:
        Misconfigured: a seed cannot be read or kept.
    """
    directory = environment.directory / "keys" / DIRECTORY
    users = []
    for role in ROLES:
        path = directory / f"{check_name(role)}.nk"
        payload = None if role in rotate else read_private(path)
        seed = new_seed(random) if payload is None else text_of(payload, f"a NATS key should be in {path}")
        public = user_key(seed.strip()).public
        if payload is None:
            write_private(path, f"{seed}\n".encode())
        users.append(AuthUser(environment.name, role, public, str(path), payload is None))
    return users


def auth_configs(environments: Sequence[tuple[ResolvedEnvironment, Sequence[AuthUser]]]) -> dict[Endpoint, str]:
    """Each server's configuration of accounts, for all `environments` that share it."""
    return {
        endpoint: server_config(
            {
                one.name: account(one.name, one.document.feed, endpoint, {user.role: user.public for user in users})
                for one, users in environments
            }
        )
        for endpoint in ENDPOINTS
    }


def write_configs(configs: dict[Endpoint, str], directory: Path) -> list[Path]:
    """{endpoint}-auth.conf for each server: public keys only, so everybody may read them. Raises Misconfigured."""
    paths = []
    for endpoint, text in configs.items():
        path = directory / f"{endpoint}-auth.conf"
        write_private(path, text.encode(), mode=0o644)
        paths.append(path)
    return paths
