"""`ssmd data quality`: what a day's data is worth, measure by measure, with a picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ssmd.cli.archive_options import DayOption, FeedOption, feed_of
from ssmd.cli.help_text import examples
from ssmd.cli.invocation import invocation_of, run
from ssmd.cli.output import Format, OutputOption, print_fields, print_json, print_table, say, thousands, time_of
from ssmd.cli.progress import ProgressLine

if TYPE_CHECKING:
    from ssmd.cli.invocation import Invocation
    from ssmd.quality.report import QualityReport

app = typer.Typer(add_completion=False, rich_markup_mode=None)

TICKERS_SHOWN = 20
STRIP_WIDTH = 40
_SIGNS = {"verified": "#", "unverifiable": "?", "missing": "!", "repaired": "+"}


@app.command(
    "quality",
    epilog=examples(
        "ssmd data quality --date 2026-05-14",
        "ssmd data quality --date 2026-05-14 --html quality.html",
        "ssmd data quality --date 2026-05-14 --no-reconcile -o json",
    ),
)
def quality(
    ctx: typer.Context,
    date: DayOption,
    feed: FeedOption = "",
    html: Annotated[Path | None, typer.Option("--html", metavar="FILE", help="Also write the report as a page.")] = None,
    reconcile: Annotated[bool, typer.Option(help="Ask the venue for its trades and compare.")] = True,
    journal: Annotated[bool, typer.Option(help="Journal the assessment.")] = True,
    output: OutputOption = Format.TABLE,
) -> None:
    """Measure a day: proof of completeness, holes, faults of books and prices, trades against the venue's own list.

    Every measure tells its method and threshold, the score its formula. A venue that cannot be asked is said so ("not
    run"). Reads every raw line of the day.
    """
    from ssmd.identifiers import system_random  # noqa: PLC0415 - keeps --help quick
    from ssmd.wiring.quality import Asker, assess_quality  # noqa: PLC0415

    invocation = invocation_of(ctx)
    environment = invocation.resolve()
    feed_of(environment, feed)
    progress = ProgressLine()
    asker = Asker(invocation.variables, invocation.clock, system_random, invocation.actor(), say)
    try:
        report = run(assess_quality(environment, asker, date, is_reconciled=reconcile, is_journaled=journal, progress=progress))
    finally:
        progress.end()
    if html is not None:
        _write_page(html, report)
    if output is Format.JSON:
        print_json(report)
    else:
        _print(invocation, report)


def _write_page(path: Path, report: QualityReport) -> None:
    from ssmd.keys.private_files import write_private  # noqa: PLC0415 - keeps --help quick
    from ssmd.quality.page import page  # noqa: PLC0415

    write_private(path, page(report).encode(), mode=0o644)
    say(f"report written to {path}")


def _print(invocation: Invocation, report: QualityReport) -> None:
    from ssmd.quality.report import percent, seconds  # noqa: PLC0415 - keeps --help quick

    print_fields(
        invocation,
        [
            ("feed", report.feed),
            ("date", report.date),
            ("assessed", f"{time_of(report.first_ns)} to {time_of(report.last_ns)} UTC, {', '.join(report.connections)}"),
            ("score", f"{percent(report.score_ppm)} by rules {report.rules}"),
            ("formula", report.formula),
            *((f"  {part.name}", f"{percent(part.ppm)}, weight {part.weight}: {part.how}") for part in report.parts),
        ],
    )
    print_table(
        invocation,
        ["measure", "standing", "found", "threshold", "method"],
        [(one.name, one.standing, one.value, one.threshold or "told", one.method) for one in report.measures],
    )
    worst = sorted(report.tickers, key=lambda one: (-one.missing_ns, -one.unverifiable_ns, one.ticker))
    print_table(
        invocation,
        ["ticker", ">records", ">verified", ">unverifiable", ">missing", ">repaired", "# verified ? unverifiable ! missing"],
        [
            (
                one.ticker,
                thousands(one.records),
                seconds(one.verified_ns),
                seconds(one.unverifiable_ns),
                seconds(one.missing_ns),
                seconds(one.repaired_ns),
                strip(one.spans, report.first_ns, report.last_ns),
            )
            for one in worst[:TICKERS_SHOWN]
        ],
        empty="no ticker was captured",
    )
    if len(worst) > TICKERS_SHOWN:
        say(f"{len(worst) - TICKERS_SHOWN} tickers more, with no more missing: -o json, or --html FILE")


def strip(spans: tuple[tuple[int, int, str], ...], first_ns: int, last_ns: int) -> str:
    """A ticker's day in `STRIP_WIDTH` signs; a hole shows however short it is, "." = not captured."""
    signs = ["."] * STRIP_WIDTH
    whole = max(last_ns - first_ns, 1)
    for start_ns, end_ns, verdict in sorted(spans, key=lambda span: list(_SIGNS).index(span[2])):
        low = (start_ns - first_ns) * STRIP_WIDTH // whole
        high = max(-(-(end_ns - first_ns) * STRIP_WIDTH // whole), low + 1)
        signs[low:high] = _SIGNS[verdict] * (min(high, STRIP_WIDTH) - low)
    return "".join(signs)
