"""What needs no key since it shows no data: the documents, a page that explains them, the dashboard's page."""

from __future__ import annotations

from importlib import resources
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ssmd.gateway.documents import asyncapi_document, openapi_document, rendered

_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_FILES: Final = {
    "/": ("dashboard.html", "text/html; charset=utf-8"),
    "/dashboard.js": ("dashboard.js", "text/javascript; charset=utf-8"),
    "/dashboard.css": ("dashboard.css", "text/css; charset=utf-8"),
    "/docs": ("docs.html", "text/html; charset=utf-8"),
    "/docs.js": ("docs.js", "text/javascript; charset=utf-8"),
}
PUBLIC_PATHS: Final = (*_FILES, "/openapi.json", "/asyncapi.json", "/healthz")


def page_routes() -> list[Route]:
    """The routes; each file is read once."""
    documents = {"/openapi.json": rendered(openapi_document()), "/asyncapi.json": rendered(asyncapi_document())}
    held = {path: (body, "application/json") for path, body in documents.items()}
    directory = resources.files("ssmd.gateway").joinpath("static")
    held |= {path: (directory.joinpath(name).read_bytes(), kind) for path, (name, kind) in _FILES.items()}
    return [_route(path, body, kind) for path, (body, kind) in held.items()]


def _route(path: str, body: bytes, kind: str) -> Route:
    headers = {"Cache-Control": "no-cache", "Content-Security-Policy": _POLICY, "Referrer-Policy": "no-referrer"}

    async def show(_: Request) -> Response:
        return Response(body, 200, headers, kind)

    return Route(path, show, methods=["GET"])
