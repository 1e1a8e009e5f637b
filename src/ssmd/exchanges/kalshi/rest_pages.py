"""Walking the venue's pages without going in circles and without losing or repeating a row.

A cursor is passed back unchanged; the last page has "". The venue answers a cursor it does not know with page one and
status 200 (recorded 2026-06), so a walk can silently begin again: rows are kept by key, cursors that were followed are
remembered.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

import msgspec

from ssmd.errors import Malformed

CURSOR_MAX: Final = 10_000

Step = Literal["next", "done", "again", "restart"]
"""next: ask `cursor`. done: all rows were given. again: the page led back to where it came from, ask it once more (the
cursor has not changed). restart: it led to a page before; begin from the first, rows stay known."""


class PageWalk:
    """One walk over the pages of one call.

    Attributes:
        cursor: what to ask next, "" for the first page.
        circles: how often in a row a page led back, without a new row.
    """

    def __init__(self, rows: str, key: str) -> None:
        self._rows = rows
        self._key = key
        self._known: set[str] = set()
        self._followed: set[str] = set()
        self.cursor = ""
        self.circles = 0

    def take(self, body: bytes) -> tuple[Step, list[msgspec.Raw]]:
        """What to do next, and the page's rows that were not given before, verbatim and in the venue's order.

        Raises:
            Malformed: the body is no page of such rows, or a row has no key.
        """
        rows, cursor = read_page(body, self._rows)
        fresh: list[msgspec.Raw] = []
        for row in rows:
            key = row_key(row, self._key)
            if key not in self._known:
                self._known.add(key)
                fresh.append(row)
        if fresh:
            self.circles = 0
        if not cursor:
            return "done", fresh
        if cursor == self.cursor:
            self.circles += 1
            return "again", fresh
        if cursor in self._followed:
            self.circles += 1
            self.cursor = ""
            self._followed.clear()
            return "restart", fresh
        self._followed.add(cursor)
        self.cursor = cursor
        return "next", fresh


_page: Final[msgspec.json.Decoder[dict[str, msgspec.Raw]]] = msgspec.json.Decoder(dict[str, msgspec.Raw])
_rows: Final[msgspec.json.Decoder[list[msgspec.Raw] | None]] = msgspec.json.Decoder(list[msgspec.Raw] | None)
_cursor: Final[msgspec.json.Decoder[str | None]] = msgspec.json.Decoder(str | None)


def read_page(body: bytes, rows: str) -> tuple[list[msgspec.Raw], str]:
    """The rows of a page, verbatim, and its cursor ("" = the last; also where there is none).

    Raises:
        Malformed: it is no page of `rows`.
    """
    try:
        page = _page.decode(body)
        found = _rows.decode(page[rows])
        cursor = _cursor.decode(page["cursor"]) if "cursor" in page else ""
    except (KeyError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Malformed(f"no page of {rows}: {error}: {body[:200]!r}") from error
    if cursor is not None and len(cursor) > CURSOR_MAX:
        raise Malformed(f"a page of {rows} has a cursor of {len(cursor)} characters; at most {CURSOR_MAX} expected")
    return found or [], cursor or ""


def row_key(row: msgspec.Raw, key: str) -> str:
    """The text under `key` in a row.

    Raises:
        Malformed: there is none.
    """
    try:
        fields: Mapping[str, Any] = _page.decode(row)
        value = msgspec.json.decode(fields[key], type=str)
    except (KeyError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Malformed(f"a row has no {key}: {error}: {bytes(row)[:200]!r}") from error
    if not value:
        raise Malformed(f"a row has an empty {key}: {bytes(row)[:200]!r}")
    return value
