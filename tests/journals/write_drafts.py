"""Write `draft/TAG.jsonl` for every event type that is not released: one stored envelope, its fields filled by type.

python tests/journals/write_drafts.py
"""

from __future__ import annotations

import types
import typing
from pathlib import Path
from typing import Any

import msgspec

from ssmd.domain.catalogue import CATALOGUE, RELEASED
from ssmd.domain.decider import tag_of
from ssmd.domain.envelope import AggregateId, Envelope, encode_envelope

DIRECTORY = Path(__file__).parent / "draft"


def value_of(annotation: Any, name: str) -> Any:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Literal:
        return arguments[0]
    if origin is tuple:
        return (value_of(arguments[0], name),)
    if origin is dict:
        return {value_of(arguments[0], "name"): value_of(arguments[1], "value")}
    if origin in (types.UnionType, typing.Union):
        return value_of(arguments[0], name)
    if isinstance(annotation, type) and issubclass(annotation, msgspec.Struct):
        return filled(annotation)
    if annotation is int:
        return 1_778_760_000_000_000_001 if name.endswith("_ns") else 7
    return {str: "0123abcd" if name in {"fingerprint", "previous"} else f"some {name} é", bool: True}[annotation]


def filled(struct: type[msgspec.Struct]) -> msgspec.Struct:
    return struct(**{field.name: value_of(field.type, field.name) for field in msgspec.structs.fields(struct)})


def envelope_of(event: msgspec.Struct, aggregate: AggregateId, version: int) -> Envelope:
    return Envelope(
        id=f"0198a3c4-0000-7000-8000-{version:012}",
        type=tag_of(event),
        aggregate=aggregate.aggregate,
        aggregate_id=aggregate.key,
        version=version,
        ts_ns=1_778_760_000_123_456_789 + version,
        actor="cli:anna",
        correlation_id="0198a3c4-0000-7000-8000-0000000000ff",
        causation_id="",
        config="c0ffee",
        data=msgspec.Raw(msgspec.json.encode(event)),
    )


def main() -> None:
    DIRECTORY.mkdir(exist_ok=True)
    for path in DIRECTORY.glob("*.jsonl"):
        path.unlink()
    for decider in CATALOGUE.deciders.values():
        aggregate = AggregateId(decider.aggregate, tuple(f"some {part}" for part in decider.id_parts))
        for version, event in enumerate((event for event in decider.events if tag_of(event) not in RELEASED), 1):
            line = encode_envelope(envelope_of(filled(event), aggregate, version))
            (DIRECTORY / f"{tag_of(event)}.jsonl").write_bytes(line + b"\n")


if __name__ == "__main__":
    main()
