"""What REST offers, as data: routes, parsing of parameters and the OpenAPI document are made of the same table."""

from __future__ import annotations

import base64
import re
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Final, Generic, NamedTuple, TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from ssmd.errors import Rejected

PAGE_DEFAULT: Final = 100
PAGE_MAX: Final = 1_000
Item = TypeVar("Item")


class Parameter(NamedTuple):
    """A query parameter, or with `in_path` a segment of the path. With `high` it is a whole number, else text.

    `form`: what a text must match as a whole; `choices`: what it is one of.
    """

    name: str
    help: str
    default: int | str = ""
    low: int = 0
    high: int = 0
    form: str = ""
    choices: tuple[str, ...] = ()
    in_path: bool = False
    length_max: int = 256


class Operation(NamedTuple):
    """One path. `statuses`: of the problems it may answer with, beyond those every path has."""

    name: str
    path: str
    tag: str
    summary: str
    answer: type[msgspec.Struct]
    parameters: tuple[Parameter, ...] = ()
    statuses: tuple[int, ...] = ()


Handler = Callable[[Request], Awaitable[Response]]

INSTANT_FORM: Final = r"[1-9]\d{17,18}|\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])T([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d{1,9})?Z"
DATE_FORM: Final = r"\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])"
LIMIT: Final = Parameter("limit", "items a page, at most", PAGE_DEFAULT, 1, PAGE_MAX)
CURSOR: Final = Parameter("cursor", "from the page before; absent = the first page", length_max=1024)
TICKER: Final = Parameter("ticker", "the market's name, percent-encoded (a / in it is %2F)", in_path=True)


def instant_of(text: str) -> int:
    """UTC nanoseconds of a text of `INSTANT_FORM`.

    Raises:
        Rejected: there is no such day.
    """
    if text.isdigit():
        return int(text)
    whole, _, fraction = text.removesuffix("Z").partition(".")
    try:
        moment = datetime.fromisoformat(whole).replace(tzinfo=UTC)
    except ValueError as error:
        raise Rejected("parameter-value", f"there is no such day: {text[:40]!r}") from error
    return int(moment.timestamp()) * 1_000_000_000 + int(fraction.ljust(9, "0"))


class Given:
    """A request's parameters, checked against an operation's."""

    def __init__(self, request: Request, operation: Operation) -> None:
        self._operation = operation
        known = {one.name: one for one in operation.parameters if not one.in_path}
        self._values: dict[str, str] = {}
        for name, value in request.query_params.multi_items():
            if name not in known:
                takes = f"this path takes {', '.join(known)}" if known else "this path takes none"
                raise Rejected("parameter-unknown", f"no parameter {name[:64]!r}; {takes}")
            if name in self._values:
                raise Rejected("parameter-value", f"parameter {name!r} is given twice")
            _check(known[name], value)
            self._values[name] = value

    def number(self, name: str) -> int:
        value = self._values.get(name)
        return int(self._default(name)) if value is None else int(value)

    def text(self, name: str) -> str:
        return self._values.get(name, str(self._default(name)))

    def _default(self, name: str) -> int | str:
        return next(one.default for one in self._operation.parameters if one.name == name)


def _check(parameter: Parameter, value: str) -> None:
    name, shown = parameter.name, repr(value[:64])
    if parameter.high:
        is_number = value.isascii() and value.isdigit() and len(value) < 20
        if not is_number or not parameter.low <= int(value) <= parameter.high:
            raise Rejected("parameter-value", f"{name} is a whole number from {parameter.low} to {parameter.high}, not {shown}")
        return
    if len(value) > parameter.length_max:
        raise Rejected("parameter-value", f"{name} has at most {parameter.length_max} characters")
    if parameter.choices and value not in parameter.choices:
        raise Rejected("parameter-value", f"{name} is one of {', '.join(parameter.choices)}, not {shown}")
    if parameter.form and not re.fullmatch(parameter.form, value):
        raise Rejected("parameter-value", f"{name} has the form {parameter.form}, not {shown}")


class Page(NamedTuple, Generic[Item]):
    """`cursor` None = the last page."""

    items: tuple[Item, ...]
    cursor: str | None


def page_of(items: Sequence[Item], key: Callable[[Item], tuple[Any, ...]], limit: int, cursor: str) -> Page[Item]:
    """A page of `items`, which rise by `key` (unique); the cursor is the key of the last one, so nothing shifts."""
    begin = 0
    if cursor:
        behind = decode_cursor(cursor)
        keys = [list(key(item)) for item in items]
        try:
            begin = sum(1 for one in keys if one <= behind)
        except TypeError as error:
            raise Rejected("parameter-value", f"not a cursor of this path: {cursor[:64]!r}") from error
    shown = tuple(items[begin : begin + limit])
    is_last = begin + limit >= len(items)
    return Page(shown, None if is_last or not shown else encode_cursor(list(key(shown[-1]))))


def encode_cursor(key: list[Any]) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode(key)).decode().rstrip("=")


def decode_cursor(cursor: str) -> list[Any]:
    """The key in a cursor.

    Raises:
        Rejected: it is none.
    """
    try:
        found = msgspec.json.decode(base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True))
    except (ValueError, msgspec.DecodeError) as error:
        raise Rejected("parameter-value", f"not a cursor of this path: {cursor[:64]!r}") from error
    if not isinstance(found, list):
        raise Rejected("parameter-value", f"not a cursor of this path: {cursor[:64]!r}")
    return found
