"""Questions of the REST interface over lists: filters, pages and the limits each call has.

A cursor is opaque text that names the last row of its page by key, so that rows which come, go or change between two
calls neither hide nor repeat others. One this venue never gave starts from the first page, as the real venue does.
The last page has the cursor "".
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from typing import NamedTuple, TypeVar

from ssmd.exchanges.kalshi.combos import is_combo

Row = TypeVar("Row")

STATUSES = {
    "unopened": {"initialized"},
    "open": {"active"},
    "paused": {"inactive"},
    "closed": {"closed", "determined", "disputed", "amended"},
    "settled": {"finalized"},
}
"""What a `status` filter means, in the words of a market's `status`."""


_PAIRS = {"created": ("unopened", "open", ""), "close": ("closed", ""), "settled": ("settled", ""), "updated": ("",)}


class BadParameter(Exception):
    """A parameter the venue refuses with 400.

    Attributes:
        body: one of the venue's two shapes for it.
    """

    def __init__(self, body: dict[str, object]) -> None:
        super().__init__(body)
        self.body = body


class Page(NamedTuple):
    """Which rows a call asks for: at most `limit` after the one with the key `after` ("" = from the first)."""

    limit: int
    after: str


def page(query: Mapping[str, str], call: str, *, default: int, maximum: int) -> Page:
    """The page asked for.

    Args:
        query: the parameters of the request.
        call: the venue's name of the call ("GetMarkets"), which its message holds.
        default: rows without a `limit`; a limit of 0 means this too.
        maximum: greatest limit.

    Raises:
        BadParameter: `limit` is above `maximum`, below 0 or no number.
    """
    text = query.get("limit", "")
    limit = whole(text, "limit") if text else default
    if not 0 <= limit <= maximum:
        tag = "lte" if limit > maximum else "gte"
        field = f"Key: '{call}Params.Limit' Error:Field validation for 'Limit' failed on the '{tag}' tag"
        message = f"Parameter validation failed for {call}: {field}"
        raise BadParameter({"msg": message})
    return Page(limit or default, _key(query.get("cursor", "")))


def whole(text: str, name: str) -> int:
    """`text` as a whole number, ASCII digits with at most a minus.

    Raises:
        BadParameter: it is none.
    """
    digits = text.removeprefix("-")
    if digits.isascii() and digits.isdigit() and len(digits) <= 18:
        return int(text)
    raise BadParameter(
        {"code": "invalid_parameters", "message": "invalid parameters", "details": f"{name}: {text!r} is no integer"}
    )


def cut(rows: Iterable[Row], key: Callable[[Row], str], wanted: Callable[[Row], bool], asked: Page) -> tuple[list[Row], str]:
    """The rows of a page and the cursor of the next one, "" on the last.

    Args:
        rows: all of them, in the order of the listing, before any filter: a cursor stays good when its row changes.
        key: a row's identity, unique.
        wanted: the filter.
        asked: the page.
    """
    held = list(rows)
    start = next((index + 1 for index, row in enumerate(held) if key(row) == asked.after), 0) if asked.after else 0
    found = list(islice((row for row in held[start:] if wanted(row)), asked.limit + 1))
    shown = found[: asked.limit]
    return shown, _cursor(key(shown[-1])) if len(found) > len(shown) else ""


def status_filter(query: Mapping[str, str]) -> set[str] | None:
    """Market statuses the `status` parameter asks for, None without one.

    Raises:
        BadParameter: an unknown status, or more than one.
    """
    text = query.get("status", "")
    if not text:
        return None
    if text not in STATUSES:
        raise BadParameter({"error": {"code": "bad_request", "message": "bad request", "details": f"invalid status {text!r}"}})
    return STATUSES[text]


def names(query: Mapping[str, str], parameter: str) -> set[str] | None:
    """A comma list, None when absent."""
    text = query.get(parameter, "")
    return set(text.split(",")) if text else None


def bounds(query: Mapping[str, str], name: str) -> tuple[int, int]:
    """Inclusive bounds in seconds from `min_{name}_ts` and `max_{name}_ts` (or `min_ts` and `max_ts`).

    Raises:
        BadParameter: one is no integer.
    """
    middle = f"{name}_" if name else ""
    least, most = query.get(f"min_{middle}ts", ""), query.get(f"max_{middle}ts", "")
    return (
        whole(least, f"min_{middle}ts") if least else -(1 << 62),
        whole(most, f"max_{middle}ts") if most else 1 << 62,
    )


def takes_combo(query: Mapping[str, str], ticker: str) -> bool:
    """Whether `mve_filter` lets the market through.

    Raises:
        BadParameter: it is neither "only" nor "exclude".
    """
    wanted = query.get("mve_filter", "")
    if wanted not in {"", "only", "exclude"}:
        raise _bad(f"invalid mve_filter {wanted!r}")
    return not wanted or is_combo(ticker) == (wanted == "only")


def check_pairing(query: Mapping[str, str]) -> None:
    """The time filters of `/markets` exclude each other, and each goes with certain statuses only.

    Raises:
        BadParameter: they do not go together.
    """
    given = {kind for kind in _PAIRS if {f"min_{kind}_ts", f"max_{kind}_ts"} & query.keys()}
    if len(given) > 1:
        raise _bad(f"filters by {' and '.join(sorted(given))} time exclude each other")
    for kind in given:
        if query.get("status", "") not in _PAIRS[kind]:
            raise _bad(f"filters by {kind} time go with status {' or '.join(name or 'none' for name in _PAIRS[kind])}")
    if "updated" in given and query.keys() & {"status", "event_ticker", "tickers"}:
        raise _bad("min_updated_ts goes with mve_filter and series_ticker only")


def _bad(details: str) -> BadParameter:
    return BadParameter({"error": {"code": "bad_request", "message": "bad request", "details": details}})


def _cursor(key: str) -> str:
    return base64.urlsafe_b64encode(f"after:{key}".encode()).decode().rstrip("=")


def _key(cursor: str) -> str:
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
    except (binascii.Error, ValueError):
        return ""
    kind, _, key = text.partition(":")
    return key if kind == "after" else ""
