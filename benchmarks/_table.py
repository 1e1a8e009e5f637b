"""One form for every figure: the ratio to a baseline taken in the same run first, then ours, the baseline, what is wanted.

    ratio  what                                         ours                    baseline                        wanted
     0.86  capture, genuine                             31,204 frames/s         36,280 msg/s, bare client       >= 0.7
        -  normalize beside cryptofeed                  not run: no index answers

`_bench.py` puts the rows of all scripts into one table. A script run alone prints the heading itself.
"""

from __future__ import annotations

import re
import sys
from typing import Any, Final

from ssmd.settings import variables

ROW: Final = re.compile(r" *(\d+\.\d\d|-)  \S")
"""How each row begins."""
IN_TABLE: Final = "SSMD_BENCH_TABLE"
"""Set for scripts whose rows go into a table that has its heading."""


ROWS: Final[list[dict[str, Any]]] = []
"""The rows printed by this process, for `_measurement.write_rows`."""
_WANTED: Final = re.compile(r"([<>]=) ([0-9.]+)")


def heading() -> None:
    """Print the names of the columns, unless somebody has."""
    if not variables().get(IN_TABLE):
        show_heading()


def show_heading() -> None:
    """Print the names of the columns."""
    print(f"{'ratio':>7}  {'what':<46} {'ours':<26} {'baseline':<36} wanted", flush=True)


def row(ratio: float, what: str, ours: str, baseline: str, wanted: str = "", *, holds: bool | None = None) -> None:
    """Print one figure. `ratio`: ours over the baseline's; where less is better, `wanted` says so by "<=".

    Args:
        holds: whether what is wanted holds, where `wanted` speaks of something else than the ratio.
    """
    if holds is None and (bound := _WANTED.fullmatch(wanted)):
        holds = ratio <= float(bound[2]) if bound[1] == "<=" else ratio >= float(bound[2])
    ROWS.append({"what": what, "ratio": round(ratio, 3), "ours": ours, "baseline": baseline, "wanted": wanted, "holds": holds})
    print(f"{ratio:7.2f}  {what:<46} {ours:<26} {baseline:<36} {wanted}".rstrip(), flush=True)


def not_run(what: str, reason: str) -> None:
    """Print that a figure was not taken, and why."""
    print(f"{'-':>7}  {what:<46} not run: {reason}", flush=True)


def note(text: str) -> None:
    """Print what is no figure, beside the table."""
    print(text, file=sys.stderr, flush=True)
