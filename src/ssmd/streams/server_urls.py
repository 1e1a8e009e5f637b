"""Urls of NATS servers: several of one cluster in one text, and never a password in a message."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import urlsplit

from ssmd.errors import Misconfigured

SCHEMES: Final = ("nats", "tls")
"""No WebSockets: `streams.nats_py`."""
# Whatever is before the last @: a password that nobody percent-encoded may have any character.
_SECRETS: Final = re.compile(r"^([a-z]+://)?.*@", re.IGNORECASE | re.DOTALL)
_BETWEEN: Final = re.compile(r",(?=\s*[a-z]+://)", re.IGNORECASE)


def redacted(url: str) -> str:
    """`url` without user and password, for messages; several are separated by commas."""
    return ",".join(_SECRETS.sub(r"\1", one.strip()) for one in _BETWEEN.split(url))


def servers_of(url: str) -> list[str]:
    """The urls in `url`.

    Raises:
        Misconfigured: one of them is none of a NATS server.
    """
    servers = [one.strip() for one in url.split(",")]
    for server in servers:
        try:
            split = urlsplit(server)
            is_valid = split.scheme in SCHEMES and bool(split.hostname) and split.port != 0
        except ValueError:
            is_valid = False
        if not is_valid:
            raise Misconfigured(
                f"not the url of a NATS server: {redacted(url)!r}",
                mend="write it as nats://host:port or tls://host:port; in a password / is %2F, a comma %2C, @ %40",
            )
    return servers
