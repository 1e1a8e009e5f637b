"""nats-py's client with shortcuts for what it does slowly for every message.

They override methods that nats-py does not promise to keep. If one changes its name there, its shortcut is not taken and
everything still works, only slower.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from nats.aio.client import Client

STATUS_LINE: Final = b"NATS/1.0 "
"""How the headers of a status message begin; those of others have a line of their own for the version."""


class PromptClient(Client):
    """Hands the bodies of some subscriptions to their callback at once, without a queue and a task in between."""

    def __init__(self) -> None:
        super().__init__()
        self.at_once: dict[int, Callable[[bytes], None]] = {}

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes) -> None:
        callback = self.at_once.get(sid)
        if callback is None:
            await super()._process_msg(sid, subject, reply, data, headers)
        else:
            callback(data)


class BodiesClient(PromptClient):
    """Parses the headers of status messages only: parsing those of stored messages takes half of a replay's time."""

    async def _process_headers(self, headers: bytes) -> dict[str, str] | None:
        if headers and headers.startswith(STATUS_LINE):
            return await super()._process_headers(headers)
        return None
