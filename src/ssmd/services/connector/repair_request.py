"""Control verb `repair` of a connector: what it is told, and what it answers."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from ssmd.errors import Malformed

VERB: Final = "repair"

Result = Literal["repaired", "already", "nothing"]
"""repaired: it is on the tape, in streams and journal now; already: it was before; nothing: none of it can be had again."""


class RepairRequest(msgspec.Struct, frozen=True):
    """A gap that is over, as its events and the view `gaps` tell it.

    Attributes:
        start_ns, end_ns: last moment proven good, and the first one again for all of `tickers`.
        channel: "" = all of the session's.
        tickers: whom it concerned, () = all of the channel.
    """

    connection: str
    gap_id: str
    start_ns: int
    end_ns: int
    channel: str = ""
    tickers: tuple[str, ...] = ()


_DECODER: Final = msgspec.json.Decoder(RepairRequest)


def decode_request(payload: bytes) -> RepairRequest:
    """The request in a message.

    Raises:
        Malformed: it is none.
    """
    try:
        return _DECODER.decode(payload)
    except msgspec.DecodeError as error:
        raise Malformed(f"not a request to repair a gap: {error}") from None
