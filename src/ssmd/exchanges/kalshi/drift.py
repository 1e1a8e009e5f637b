"""What does not fit the frames we know: every frame that fails to decode is compared key by key and named.

A frame with unknown keys is still read, without them (Kalshi adds fields about monthly). A frame that is no JSON, of an
unknown type, or with a missing or wrong field is not read; what its envelope tells (sid, seq, ticker) is kept, so
that the mapper can say whose book it concerns.
"""

from __future__ import annotations

import re
import types
from collections.abc import Iterator
from functools import cache
from typing import Annotated, Any, Final, NamedTuple, get_args, get_origin

import msgspec

from ssmd.errors import Malformed
from ssmd.exchanges.kalshi.frames import UNREADABLE, Frame, Sid, Ticker, Wire

DETAIL_MAX: Final = 200
_NAME_MAX: Final = 64

_PLACE: Final = re.compile(r" - at `\$\.?([^`]*)`$")
_MISSING: Final = re.compile(r"Object missing required field `([^`]*)`")
_UNKNOWN: Final = re.compile(r"Object contains unknown field `([^`]*)`")
_WRONG_VALUE: Final = re.compile(
    r"Invalid (enum )?value|.*( of length | (<|>|<=|>=) -?\d)|Number out of range|Integer value out of range"
)


class Finding(NamedTuple):
    """One way in which a frame did not fit; see `domain.capture.DriftDetected`."""

    what: str
    frame_type: str
    field: str
    detail: str


class Salvaged(NamedTuple):
    """A frame that did not decode as it stands.

    Attributes:
        frame: what it says without its unknown keys; None when it cannot be read.
        findings: at least one.
        frame_type, sid, seq, ticker: what the envelope tells, "" and 0 where it does not.
    """

    frame: Frame | None
    findings: tuple[Finding, ...]
    frame_type: str = ""
    sid: int = 0
    seq: int = 0
    ticker: str = ""


_OBJECT: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_TEXT: Final = msgspec.json.Decoder(str)
_SID: Final = msgspec.json.Decoder(Sid)
_SEQ: Final = msgspec.json.Decoder(Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)])
_TICKER: Final = msgspec.json.Decoder(Ticker)


def salvage(payload: bytes, wire: Wire) -> Salvaged:
    """What can be made of `payload`, which `wire` did not decode. Never raises."""
    try:
        envelope = _OBJECT.decode(payload)
    except UNREADABLE as error:
        return Salvaged(None, (Finding("malformed", "", "", _clip(f"{error}: {payload[:80]!r}")),))
    frame_type = _read(_TEXT, envelope.get("type"), "")
    if not frame_type:
        what = "wrong-type" if "type" in envelope else "missing-field"
        return Salvaged(None, (Finding(what, "", "type", _clip(repr(payload[:DETAIL_MAX]))),))
    told = _told(envelope)
    struct = wire.types.get(frame_type)
    if struct is None:
        finding = Finding("unknown-type", _clip(frame_type, _NAME_MAX), "", f"not a frame of {wire.name}")
        return Salvaged(None, (finding,), frame_type, *told)
    findings: tuple[Finding, ...] = ()
    try:
        known, unknown = prune(payload, struct)
        findings = tuple(unknown_field(frame_type, name) for name in unknown)
        return Salvaged(wire.decode(known), findings or (_odd(frame_type),), frame_type, *told)
    except UNREADABLE as error:
        found = classify(error, frame_type)
        if found.what == "missing-field" and len(findings) == 1:
            found = found._replace(detail=_clip(f"{found.detail}; perhaps it is called {findings[0].field} now"))
        return Salvaged(None, (found, *findings), frame_type, *told)


def prune(payload: bytes | msgspec.Raw, struct: type[msgspec.Struct]) -> tuple[bytes, tuple[str, ...]]:
    """`payload` without the keys that `struct` (and the structs in it) lacks, and those keys ("msg.new_field").

    All other values keep their text. Raises one of UNREADABLE.
    """
    unknown: list[str] = []
    kept = _prune(payload, struct, "", unknown)
    return kept, tuple(unknown)


def _prune(payload: bytes | msgspec.Raw, struct: type[msgspec.Struct], path: str, unknown: list[str]) -> bytes:
    kept: dict[str, msgspec.Raw] = {}
    inner = _keys_of(struct)
    for key, value in _OBJECT.decode(payload).items():
        if key not in inner:
            unknown.append(_clip(f"{path}{key}", _NAME_MAX))
            continue
        nested = inner.get(key)
        if nested is not None and bytes(value).lstrip().startswith(b"{"):
            kept[key] = msgspec.Raw(_prune(value, nested, f"{path}{key}.", unknown))
        else:
            kept[key] = value
    return msgspec.json.encode(kept)


@cache
def _keys_of(struct: type[msgspec.Struct]) -> dict[str, type[msgspec.Struct] | None]:
    """Known keys, and the struct in each where there is one. Kept: a new field comes with every frame of its type."""
    keys = {field.encode_name: _struct_in(field.type) for field in msgspec.structs.fields(struct)}
    tag_field = struct.__struct_config__.tag_field
    return {**keys, tag_field: None} if tag_field else keys


def _struct_in(annotation: Any) -> type[msgspec.Struct] | None:
    """The struct among an annotation's alternatives, not inside its containers."""
    for one in _alternatives(annotation):
        if isinstance(one, type) and issubclass(one, msgspec.Struct):
            return one
    return None


def _alternatives(annotation: Any) -> Iterator[Any]:
    if get_origin(annotation) is types.UnionType:
        yield from get_args(annotation)
    else:
        yield annotation


def unknown_field(frame_type: str, name: str) -> Finding:
    """A key that no struct has."""
    return Finding("unknown-field", frame_type, name, "this version of ssmd does not know the field; the raw frame has it")


def classify(error: Exception, frame_type: str, path: str = "") -> Finding:
    """A reader's error as a finding; `path` is where the part that was read stands in the frame ("msg")."""
    text = str(error)
    if isinstance(error, Malformed):
        return Finding("unknown-value", frame_type, path, _clip(text))
    if not isinstance(error, msgspec.ValidationError):
        return Finding("malformed", frame_type, path, _clip(text))
    place = _PLACE.search(text)
    names = [path, place.group(1) if place else ""]
    missing, unknown = _MISSING.match(text), _UNKNOWN.match(text)
    if missing:
        what = "missing-field"
        names.append(missing.group(1))
    elif unknown:
        what = "unknown-field"
        names.append(unknown.group(1))
    else:
        what = "unknown-value" if _WRONG_VALUE.match(text) else "wrong-type"
    return Finding(what, frame_type, _clip(".".join(name for name in names if name), _NAME_MAX), _clip(text))


def _odd(frame_type: str) -> Finding:
    # Not reachable while decoding is deterministic: it failed, nothing was pruned, and then it succeeded.
    return Finding("malformed", frame_type, "", "decoded only at the second attempt")


def _told(envelope: dict[str, msgspec.Raw]) -> tuple[int, int, str]:
    body = envelope.get("msg")
    ticker = ""
    if body is not None:
        try:
            ticker = _read(_TICKER, _OBJECT.decode(body).get("market_ticker"), "")
        except UNREADABLE:
            ticker = ""
    return _read(_SID, envelope.get("sid"), 0), _read(_SEQ, envelope.get("seq"), 0), ticker


def _read(decoder: msgspec.json.Decoder[Any], raw: msgspec.Raw | None, otherwise: Any) -> Any:
    if raw is None:
        return otherwise
    try:
        return decoder.decode(raw)
    except UNREADABLE:
        return otherwise


def _clip(text: str, limit: int = DETAIL_MAX) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"
