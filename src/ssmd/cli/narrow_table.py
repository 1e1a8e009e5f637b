"""A table for a terminal that is narrower than its rows: each row goes on in further lines, its columns still aligned.

    TIME (UTC)               WHO
        WHAT
    2026-11-22 17:28:30.764  connector:kalshi-main
        connected to ws://127.0.0.1:40585/trade-api/ws/v2 as session
        1795368510764635111

The last column is prose: it alone is broken at words. Any other cell is a value to copy, and stays whole even where it
is wider than the terminal.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Final

from rich.cells import cell_len

COLUMN_GAP: Final = 2
INDENT: Final = 4
LAST_COLUMN_MIN: Final = 30
"""Characters the last column gets at least where it stands beside others; else it has lines of its own."""


def natural_widths(rows: Sequence[Sequence[str]]) -> list[int]:
    """Width of each column in terminal cells, so that nothing in it is broken."""
    return [max(cell_len(cell) for cell in column) for column in zip(*rows, strict=True)]


def narrow_table(
    headings: Sequence[str], is_right: Sequence[bool], cells: Sequence[Sequence[str]], width: int
) -> list[list[str]]:
    """The lines of the headings, then those of each row."""
    widths = natural_widths([headings, *cells])
    lines_of_columns = _laid_out(widths, width)
    rows = [[heading.upper() for heading in headings], *cells]
    return [_lines_of(row, is_right, widths, lines_of_columns, width) for row in rows]


def _laid_out(widths: Sequence[int], width: int) -> list[list[int]]:
    """Which columns stand in which line; only the first line is not indented."""
    lines: list[list[int]] = [[]]
    room = width
    for index, wanted in enumerate(widths):
        is_last = index == len(widths) - 1
        needed = min(wanted, LAST_COLUMN_MIN) if is_last else wanted
        if lines[-1] and needed > room:
            lines.append([])
            room = width - INDENT
        lines[-1].append(index)
        room -= wanted + COLUMN_GAP
    return lines


def _lines_of(
    row: Sequence[str], is_right: Sequence[bool], widths: Sequence[int], lines_of_columns: Sequence[Sequence[int]], width: int
) -> list[str]:
    shown: list[str] = []
    for number, columns in enumerate(lines_of_columns):
        line = " " * (INDENT if number else 0)
        for index in columns:
            if index == len(row) - 1 and not is_right[index]:
                first, *more = _wrapped(row[index], width - cell_len(line))
                hang = " " * cell_len(line)
                shown += [text.rstrip() for text in (f"{line}{first}", *(f"{hang}{text}" for text in more)) if text.strip()]
                line = ""
                break
            padding = " " * (widths[index] - cell_len(row[index]))
            line += f"{padding}{row[index]}" if is_right[index] else f"{row[index]}{padding}"
            line += " " * COLUMN_GAP
        if line.strip():
            shown.append(line.rstrip())
    return shown


def _wrapped(prose: str, width: int) -> list[str]:
    """At least one line. Not broken at hyphens: most of them stand in names."""
    return textwrap.wrap(prose, max(width, LAST_COLUMN_MIN), break_on_hyphens=False) or [""]
