"""Who we are at a NATS server, carried in its url as nats://nkey:SEED@host, so that it comes wherever the url comes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit, urlunsplit

if TYPE_CHECKING:
    from ssmd.streams.nkeys import UserKey

_NKEY_USER: Final = "nkey:"


def with_nkey(url: str, seed: str) -> str:
    """`url` (one server or several) for the user with that seed; the result is a secret."""
    return ",".join(
        f"{scheme}{slashes}{_NKEY_USER}{seed}@{rest}" if slashes else one.strip()
        for one in url.split(",")
        for scheme, slashes, rest in (one.strip().partition("://"),)
    )


def without_nkey(servers: list[str]) -> tuple[list[str], UserKey | None]:
    """The servers' urls, and who we are there where the urls say so by a seed."""
    plain: list[str] = []
    key: UserKey | None = None
    for server in servers:
        split = urlsplit(server)
        user, at, rest = split.netloc.rpartition("@")
        if at and user.startswith(_NKEY_USER):
            from ssmd.streams.nkeys import user_key  # noqa: PLC0415 - 50 ms that most commands need not spend

            key = user_key(user.removeprefix(_NKEY_USER))
            server = urlunsplit(split._replace(netloc=rest))  # noqa: PLW2901 - the same server
        plain.append(server)
    return plain, key
