"""What a WebSocket client may say: strict types, and a typed refusal for everything else. Pure."""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec

from ssmd.domain.client import Mode
from ssmd.gateway.kinds import KINDS
from ssmd.gateway.messages import Refusal

COMMAND_BYTES_MAX: Final = 64 << 10
TICKERS_PER_COMMAND_MAX: Final = 1_000

Id = Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)]
Ticker = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
Names = Annotated[tuple[Ticker, ...], msgspec.Meta(max_length=64)]


class Command(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="cmd"):
    """`id` is the client's own; the answer repeats it."""

    id: Id


class Subscribe(Command, frozen=True, tag="subscribe"):
    """`kinds` empty = all of `hub.KINDS`; "*" = all tickers, "KXBTC15M-*" = those that begin so, also those to come.

    Attributes:
        series, categories: of the venue's list: the same as naming their markets, those listed later included; the ack's
            `tickers` say what they came to. At least one of `tickers`, `series` and `categories` is not empty.
        resume_from: send again everything behind this `stream_seq`, then go on live: nothing twice, nothing missing. Only
            as the connection's first subscription; there are no snapshots then. It is the `stream_seq` of the last
            message that was handled (all messages of one `stream_seq` come in one frame).
        stream: the `stream` of the ack that the sequence comes with; another one now is refused. "" = not compared.
    """

    tickers: Annotated[tuple[Ticker, ...], msgspec.Meta(max_length=TICKERS_PER_COMMAND_MAX)] = ()
    kinds: Annotated[tuple[str, ...], msgspec.Meta(max_length=16)] = ()
    series: Names = ()
    categories: Names = ()
    resume_from: Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)] | None = None
    stream: Annotated[str, msgspec.Meta(max_length=64)] = ""


class Unsubscribe(Command, frozen=True, tag="unsubscribe"):
    """As `Subscribe`."""

    tickers: Annotated[tuple[Ticker, ...], msgspec.Meta(max_length=TICKERS_PER_COMMAND_MAX)] = ()
    kinds: Annotated[tuple[str, ...], msgspec.Meta(max_length=16)] = ()
    series: Names = ()
    categories: Names = ()


class SetMode(Command, frozen=True, tag="mode"):
    """How the whole connection is served from now on.

    realtime: every message; who does not keep up is told what it lost, and closed. conflated: at most one frame every
    `interval_ms`, with the newest trade, quote and status of each market, its whole book where that changed, and all gaps.
    latest: the same as often as the client reads.
    """

    mode: Mode
    interval_ms: Annotated[int, msgspec.Meta(ge=10, le=60_000)] = 1_000


class Ping(Command, frozen=True, tag="ping"):
    pass


AnyCommand = Subscribe | Unsubscribe | SetMode | Ping
_NAMES: Final = ("subscribe", "unsubscribe", "mode", "ping")
_SHOWN: Final = 64


def parse_command(text: str) -> AnyCommand | Refusal:
    """The command in a text frame; a refusal (too-large, malformed-json, bad-command, unknown-command, unknown-kind)."""
    if len(text) > COMMAND_BYTES_MAX or len(raw := _bytes(text)) > COMMAND_BYTES_MAX:
        return Refusal(None, "too-large", f"a command has at most {COMMAND_BYTES_MAX} bytes")
    try:
        found: Any = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return Refusal(None, "malformed-json", f"not JSON: {error}"[:200])
    if not isinstance(found, dict):
        return Refusal(None, "bad-command", f"a command is a JSON object, this is {type(found).__name__}")
    command_id = found.get("id")
    known_id = command_id if type(command_id) is int and 0 <= command_id < 2**53 else None
    name = found.get("cmd")
    if not isinstance(name, str):
        return Refusal(known_id, "bad-command", f'"cmd" is missing or no text; commands: {", ".join(_NAMES)}')
    if name not in _NAMES:
        return Refusal(known_id, "unknown-command", f"no command {name[:_SHOWN]!r}; commands: {', '.join(_NAMES)}")
    try:
        command: AnyCommand = msgspec.convert(found, AnyCommand)
    except msgspec.ValidationError as error:
        return Refusal(known_id, "bad-command", f"{name}: {error}"[:200])
    if isinstance(command, Subscribe | Unsubscribe):
        if not (command.tickers or command.series or command.categories):
            return Refusal(known_id, "bad-command", f"{name}: `tickers`, `series` or `categories` must name something")
        unknown = sorted({kind for kind in command.kinds if kind not in KINDS})
        if unknown:
            return Refusal(known_id, "unknown-kind", f"no kind {unknown[0][:_SHOWN]!r}; kinds: {', '.join(KINDS)}")
    return command


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
