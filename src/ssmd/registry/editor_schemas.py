"""JSON Schemas of the documents, for editors: exchanges/.schemas/{feed,schema,environment}.json, named by a modeline.

Generated from `documents`. What they cannot say (references between documents, dates in the calendar) `ssmd validate` checks.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from ssmd.registry.documents import EnvironmentDocument, FeedDocument, SchemaDocument

DOCUMENT_OF: Final[dict[str, type[msgspec.Struct]]] = {
    "feed": FeedDocument,
    "schema": SchemaDocument,
    "environment": EnvironmentDocument,
}


def modeline(kind: str) -> str:
    """The first line of a document of `kind` ("feed"): where YAML language servers find its schema."""
    return f"# yaml-language-server: $schema=../.schemas/{kind}.json\n"


def editor_schema_files() -> dict[str, bytes]:
    """The files, by their path in exchanges/."""
    return {f".schemas/{kind}.json": _rendered(document) for kind, document in DOCUMENT_OF.items()}


def _rendered(document: type[msgspec.Struct]) -> bytes:
    schema: dict[str, Any] = {"$schema": "http://json-schema.org/draft-07/schema#", **msgspec.json.schema(document)}
    # Draft 7 knows `definitions` only, and the language servers know draft 7 best.
    payload = (
        msgspec.json.encode(schema, order="sorted")
        .replace(b'"$defs"', b'"definitions"')
        .replace(b"#/$defs/", b"#/definitions/")
    )
    return msgspec.json.format(payload, indent=2) + b"\n"
