"""The table from errors to HTTP statuses, and the one shape of an error answer (RFC 9457, application/problem+json)."""

from __future__ import annotations

from http import HTTPStatus
from typing import Final

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from ssmd.errors import Conflict, Malformed, Misconfigured, Rejected, SsmdError, Unavailable

MEDIA_TYPE: Final = "application/problem+json"

STATUS_OF_ERROR: Final[dict[type[SsmdError], HTTPStatus]] = {
    Rejected: HTTPStatus.UNPROCESSABLE_ENTITY,
    Conflict: HTTPStatus.CONFLICT,
    Malformed: HTTPStatus.BAD_REQUEST,
    Unavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    Misconfigured: HTTPStatus.INTERNAL_SERVER_ERROR,
    SsmdError: HTTPStatus.INTERNAL_SERVER_ERROR,
}
"""Error class -> status; a subclass without an entry takes its nearest ancestor's."""

STATUS_OF_RULE: Final[dict[str, HTTPStatus]] = {
    "market-unknown": HTTPStatus.NOT_FOUND,
    "path-unknown": HTTPStatus.NOT_FOUND,
    "parameter-unknown": HTTPStatus.BAD_REQUEST,
    "parameter-value": HTTPStatus.BAD_REQUEST,
    "key-missing": HTTPStatus.UNAUTHORIZED,
    "key-invalid": HTTPStatus.UNAUTHORIZED,
    "key-expired": HTTPStatus.UNAUTHORIZED,
    "key-revoked": HTTPStatus.UNAUTHORIZED,
    "scope-missing": HTTPStatus.FORBIDDEN,
    "feed-forbidden": HTTPStatus.FORBIDDEN,
    "origin-forbidden": HTTPStatus.FORBIDDEN,
    "host-forbidden": HTTPStatus.FORBIDDEN,
    "rate-limited": HTTPStatus.TOO_MANY_REQUESTS,
    "target-too-long": HTTPStatus.REQUEST_URI_TOO_LONG,
    "body-refused": HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    "day-unknown": HTTPStatus.NOT_FOUND,
    "no-book": HTTPStatus.NOT_FOUND,
    "not-archived": HTTPStatus.NOT_FOUND,
    "upgrade-required": HTTPStatus.UPGRADE_REQUIRED,
}
"""Rule of a `Rejected` -> status, where it says more than the class."""


class Problem(msgspec.Struct, frozen=True, omit_defaults=True):
    """An error answer's body.

    Attributes:
        type: "urn:ssmd:problem:" and the rule or the error's class in kebab case; stable, for programs.
        title: the status in words. detail: this case, for people. mend: what puts it right.
    """

    type: str
    title: str
    status: int
    detail: str = ""
    mend: str = ""
    instance: str = ""


def status_of(error: SsmdError) -> HTTPStatus:
    """The status an error answers with."""
    if isinstance(error, Rejected) and error.rule in STATUS_OF_RULE:
        return STATUS_OF_RULE[error.rule]
    return next(STATUS_OF_ERROR[ancestor] for ancestor in type(error).__mro__ if ancestor in STATUS_OF_ERROR)


def problem_of(error: SsmdError, path: str) -> Problem:
    """The body for `error`."""
    status = status_of(error)
    name = error.rule if isinstance(error, Rejected) else type(error).__name__.lower()
    return Problem(f"urn:ssmd:problem:{name}", status.phrase, status.value, error.message, error.mend, path)


def answer(problem: Problem, headers: dict[str, str] | None = None) -> Response:
    """The HTTP answer that carries `problem`."""
    return Response(msgspec.json.encode(problem), problem.status, headers, MEDIA_TYPE)


async def on_ssmd_error(request: Request, error: Exception) -> Response:
    """Starlette exception handler for the whole tree of ours."""
    if not isinstance(error, SsmdError):  # pragma: no cover - starlette dispatches by class
        raise error
    return answer(problem_of(error, request.url.path))


async def on_http_exception(request: Request, error: Exception) -> Response:
    """Starlette exception handler for its own refusals (no such route, wrong method)."""
    if not isinstance(error, HTTPException):  # pragma: no cover - starlette dispatches by class
        raise error
    status = HTTPStatus(error.status_code)
    name = status.phrase.lower().replace(" ", "-")
    detail = f"{request.method} {request.url.path}: {error.detail}"
    headers = dict(error.headers) if error.headers else None
    return answer(Problem(f"urn:ssmd:problem:{name}", status.phrase, status.value, detail, "", request.url.path), headers)
