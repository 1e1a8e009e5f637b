"""How answers are shown: tables for people, JSON for programs.

On a terminal tables are drawn by rich, or, where they do not fit its width, in lines below one another (`cli.narrow_table`);
into a pipe they are plain columns, one row a line. JSON is one document with the exact values (decimals stay text).
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import Annotated, Any

import typer

from ssmd.cli.exit_status import harmless
from ssmd.cli.invocation import Invocation


class Format(StrEnum):
    """Forms of an answer."""

    TABLE = "table"
    JSON = "json"


OutputOption = Annotated[Format, typer.Option("--output", "-o", help="Form of the answer.")]


def print_json(value: Any) -> None:
    """`value` (structs, dicts, lists, numbers, text) as one indented JSON document."""
    import msgspec  # noqa: PLC0415 - keeps --help quick

    sys.stdout.write(msgspec.json.format(msgspec.json.encode(value), indent=2).decode() + "\n")


def print_json_line(value: Any) -> None:
    """`value` as JSON on one line, out at once: for answers that go on and on."""
    import msgspec  # noqa: PLC0415 - keeps --help quick

    sys.stdout.write(msgspec.json.encode(value).decode() + "\n")
    sys.stdout.flush()


def print_table(
    invocation: Invocation, columns: Sequence[str], rows: Iterable[Sequence[object]], *, title: str = "", empty: str = "nothing"
) -> None:
    """Rows under headings; a heading that begins with ">" is set flush right. No rows: the sentence `empty`."""
    cells = [[cell_of(value) for value in row] for row in rows]
    if not cells:
        sys.stdout.write(f"{empty}\n")
        return
    headings = [column.removeprefix(">") for column in columns]
    is_right = [column.startswith(">") for column in columns]
    if sys.stdout.isatty():
        _print_rich(invocation, headings, is_right, cells, title)
    else:
        _print_plain(headings, is_right, cells)


def print_fields(invocation: Invocation, fields: Sequence[tuple[str, object]]) -> None:
    """Names and values, one a line."""
    width = max(len(name) for name, _ in fields)
    bold, plain = ("\x1b[1m", "\x1b[0m") if has_color(invocation) else ("", "")
    for name, value in fields:
        sys.stdout.write(f"{bold}{name.ljust(width)}{plain}  {cell_of(value)}".rstrip() + "\n")


def has_color(invocation: Invocation) -> bool:
    """Whether colours may be used on stdout (https://no-color.org: any value that is not empty forbids them)."""
    is_dumb = invocation.variables.get("TERM") == "dumb"
    return invocation.color and not invocation.variables.get("NO_COLOR") and sys.stdout.isatty() and not is_dumb


def say(text: str) -> None:
    """News beside the answer, on stderr."""
    sys.stderr.write(f"{harmless(text)}\n")
    sys.stderr.flush()


def thousands(number: int) -> str:
    """12345 as 12,345."""
    return f"{number:,}"


def time_of(ts_ns: int) -> str:
    """UTC time to the millisecond, "" for 0."""
    from ssmd.clock import iso_of  # noqa: PLC0415 - keeps --help quick

    return f"{iso_of(ts_ns)[:23].replace('T', ' ')}" if ts_ns else ""


def duration_of(nanoseconds: int) -> str:
    """About how long: 12.3 s, 4 m 05 s, 3 h 07 m."""
    seconds = nanoseconds // 1_000_000_000
    if seconds < 60:
        return f"{nanoseconds // 1_000_000_000}.{nanoseconds // 100_000_000 % 10} s"
    if seconds < 3600:
        return f"{seconds // 60} m {seconds % 60:02} s"
    return f"{seconds // 3600} h {seconds // 60 % 60:02} m"


def cell_of(value: object) -> str:
    """`value` as one line of text that is safe for a terminal."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return harmless("" if value is None else str(value)).replace("\n", " ")


def _print_plain(headings: Sequence[str], is_right: Sequence[bool], cells: Sequence[Sequence[str]]) -> None:
    rows = [[heading.upper() for heading in headings], *cells]
    widths = [max(len(row[index]) for row in rows) for index in range(len(headings))]
    for row in rows:
        aligned = [
            cell.rjust(width) if right else cell.ljust(width) for cell, width, right in zip(row, widths, is_right, strict=True)
        ]
        sys.stdout.write("  ".join(aligned).rstrip() + "\n")


def _print_rich(
    invocation: Invocation, headings: Sequence[str], is_right: Sequence[bool], cells: Sequence[Sequence[str]], title: str
) -> None:
    from rich import box  # noqa: PLC0415 - keeps --help quick
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    from ssmd.cli.narrow_table import COLUMN_GAP, LAST_COLUMN_MIN, narrow_table, natural_widths  # noqa: PLC0415

    console = Console(color_system="auto" if has_color(invocation) else None, highlight=False)
    widths = natural_widths([headings, *cells])
    *fixed, last = widths
    beside_last = console.width - sum(fixed) - COLUMN_GAP * len(widths)
    if beside_last < min(last, LAST_COLUMN_MIN):
        bold, plain = ("\x1b[1m", "\x1b[0m") if has_color(invocation) else ("", "")
        first, *rest = narrow_table(headings, is_right, cells, console.width)
        sys.stdout.write("".join(f"{line}\n" for line in ([title] if title else [])))
        sys.stdout.write("".join(f"{bold}{line}{plain}\n" for line in first))
        sys.stdout.write("".join(f"{line}\n" for row in rest for line in row))
        return
    table = Table(title=title or None, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for index, (heading, right) in enumerate(zip(headings, is_right, strict=True)):
        is_last = index == len(fixed)
        table.add_column(heading, justify="right" if right else "left", overflow="fold", no_wrap=not is_last)
    for row in cells:
        table.add_row(*(Text(cell) for cell in row))  # Text: what stands in brackets is no markup
    console.print(table)
