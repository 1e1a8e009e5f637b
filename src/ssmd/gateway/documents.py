"""The OpenAPI 3.1 and AsyncAPI 3 documents, made of the operations and of the types themselves."""

from __future__ import annotations

import sys
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

import msgspec

from ssmd import __version__
from ssmd.gateway import record_routes, rest
from ssmd.gateway.api_keys import SCOPES
from ssmd.gateway.commands import AnyCommand
from ssmd.gateway.messages import Control, MarketMessage
from ssmd.gateway.operations import Operation, Parameter
from ssmd.gateway.problems import MEDIA_TYPE, Problem

OPERATIONS: Final = (*rest.OPERATIONS, *record_routes.OPERATIONS)
_REF: Final = "#/components/schemas/{name}"
_ALWAYS: Final = (400, 401, 403, 413, 414, 429, 500, 503)
"""Problems any path may answer with."""
_ABOUT: Final = (
    "Live and recorded market data of one feed. Prices and sizes are exact decimal text, times are UTC nanoseconds since "
    "1970 (0 = unknown). Every answer about data says in `coverage` what it rests on."
)
_WIRE: Final = (
    "A WebSocket. Text frames only: one command (a JSON object) a frame to the gateway, one JSON array of 1..k messages a "
    "frame back. All messages of one `stream_seq` come in one frame. Each command is answered by an ack or an error with "
    "its `id`. Reconnect with `resume_from` = the last `stream_seq` handled: nothing comes twice, nothing is missing."
)


def openapi_document() -> dict[str, Any]:
    """The REST side."""
    answers = tuple(dict.fromkeys(operation.answer for operation in OPERATIONS))
    schemas, components = msgspec.json.schema_components((*answers, Problem), ref_template=_REF)
    of_type = dict(zip((*answers, Problem), schemas, strict=True))
    return {
        "openapi": "3.1.0",
        "info": {"title": "ssmd gateway", "version": __version__, "description": _ABOUT, "license": {"name": "Apache-2.0"}},
        "jsonSchemaDialect": "https://json-schema.org/draft/2020-12/schema",
        "security": [{"apiKey": []}],
        "tags": [{"name": name} for name in dict.fromkeys(operation.tag for operation in OPERATIONS)],
        "paths": {operation.path: {"get": _get(operation, of_type)} for operation in OPERATIONS},
        "components": {
            "schemas": components,
            "securitySchemes": {
                "apiKey": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "A key of `ssmd client create`. Scopes: "
                    + "; ".join(f"`{name}` opens {what}" for name, what in SCOPES.items()),
                }
            },
        },
    }


def _get(operation: Operation, of_type: dict[Any, Any]) -> dict[str, Any]:
    statuses = sorted({*_ALWAYS, *operation.statuses})
    return {
        "operationId": operation.name,
        "summary": operation.summary,
        "tags": [operation.tag],
        "parameters": [_parameter(one) for one in operation.parameters],
        "responses": {
            "200": {
                "description": "OK",
                "headers": {"ETag": {"schema": {"type": "string"}, "description": "send it back as If-None-Match"}},
                "content": {"application/json": {"schema": of_type[operation.answer]}},
            },
            "304": {"description": "As the ETag in If-None-Match says"},
            **{str(status): _problem(operation, status, of_type) for status in statuses},
        },
    }


def _problem(operation: Operation, status: int, of_type: dict[Any, Any]) -> dict[str, Any]:
    content: dict[str, Any] = {MEDIA_TYPE: {"schema": of_type[Problem]}}
    if operation.name == "getHealth" and status == HTTPStatus.SERVICE_UNAVAILABLE:
        content["application/json"] = {"schema": of_type[operation.answer]}
    return {"description": HTTPStatus(status).phrase, "content": content}


def _parameter(one: Parameter) -> dict[str, Any]:
    schema: dict[str, Any]
    if one.high:
        schema = {"type": "integer", "minimum": one.low, "maximum": one.high}
        if one.default:
            schema["default"] = one.default
    else:
        schema = {"type": "string", "maxLength": one.length_max}
        if one.choices:
            schema = {"type": "string", "enum": list(one.choices), "default": one.default}
        if one.form:
            schema["pattern"] = f"^({one.form})$"
        if one.in_path:
            schema["minLength"] = 1
    place = "path" if one.in_path else "query"
    return {"name": one.name, "in": place, "required": one.in_path, "description": one.help, "schema": schema}


def asyncapi_document() -> dict[str, Any]:
    """The WebSocket side."""
    said = tuple(_leaves(AnyCommand))
    told = (*_leaves(MarketMessage), *_leaves_of(Control))
    schemas, components = msgspec.json.schema_components((*said, *told), ref_template=_REF)
    of_type = dict(zip((*said, *told), schemas, strict=True))
    messages = {
        one.__name__: {"name": _tag(one), "summary": _first_line(one), "payload": of_type[one]} for one in (*said, *told)
    }

    def refer(types: tuple[Any, ...]) -> list[dict[str, str]]:
        return [{"$ref": f"#/channels/stream/messages/{one.__name__}"} for one in types]

    return {
        "asyncapi": "3.0.0",
        "info": {"title": "ssmd gateway", "version": __version__, "description": f"{_ABOUT}\n\n{_WIRE}"},
        "defaultContentType": "application/json",
        "channels": {
            "stream": {
                "address": "/v1/stream",
                "description": _WIRE,
                "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in messages},
                "bindings": {"ws": {"method": "GET"}},
            }
        },
        "operations": {
            "command": {"action": "receive", "channel": {"$ref": "#/channels/stream"}, "messages": refer(said)},
            "tell": {"action": "send", "channel": {"$ref": "#/channels/stream"}, "messages": refer(told)},
        },
        "components": {"messages": messages, "schemas": components},
    }


def _leaves(union: Any) -> tuple[Any, ...]:
    arguments: tuple[Any, ...] = union.__args__
    return arguments


def _leaves_of(root: type[msgspec.Struct]) -> tuple[Any, ...]:
    return tuple(root.__subclasses__())


def _tag(struct: Any) -> str:
    return str(struct.__struct_config__.tag)


def _first_line(struct: Any) -> str:
    return (struct.__doc__ or "").strip().partition("\n")[0]


def rendered(document: dict[str, Any]) -> bytes:
    """A document as it is served and kept in docs/reference."""
    return msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n"


def main(directory: str) -> None:
    """Write both into `directory`."""
    for name, document in (("openapi", openapi_document()), ("asyncapi", asyncapi_document())):
        Path(directory, f"{name}.json").write_bytes(rendered(document))


if __name__ == "__main__":
    main(sys.argv[1])
