"""`ssmd secmaster`: which markets there are, what they are about, how far each is, and since when we know it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from ssmd.cli.as_of import as_of_given, checked_as_of
from ssmd.cli.data import FeedOption, ask, feed_of
from ssmd.cli.exit_status import NO
from ssmd.cli.help_text import examples
from ssmd.cli.invocation import Invocation, invocation_of, run
from ssmd.cli.output import Format, OutputOption, print_fields, print_json, print_table, say, thousands, time_of
from ssmd.cli.progress import ProgressLine
from ssmd.cli.time_span import checked_span, span_ns

if TYPE_CHECKING:
    from ssmd.projections.market_filter import MarketFilter
    from ssmd.projections.secmaster import MarketRow
    from ssmd.streams.journal import Journal

Answer = TypeVar("Answer")

app = typer.Typer(
    add_completion=False, rich_markup_mode=None, no_args_is_help=True, help="Markets: what there is, and what became of it."
)

LIMIT = 100


def _checked_time(text: str) -> str:
    moment = as_of_given(checked_as_of(text))
    if moment is not None and moment.ts_ns is None:
        raise typer.BadParameter(f"{text!r} is no time; give a UTC date or a time in ISO 8601")
    return text


def _checked_status(text: str) -> str:
    from ssmd.projections.market_filter import STATUSES  # noqa: PLC0415 - keeps --help quick

    if text and text not in STATUSES:
        raise typer.BadParameter(f"{text!r} is not one of {', '.join(STATUSES)}")
    return text


ValidOption = Annotated[
    str, typer.Option("--as-of", metavar="TIME", callback=_checked_time, help="As it was at the venue then.")
]
KnownOption = Annotated[
    str,
    typer.Option(
        "--known-at", metavar="TIME|SEQUENCE", callback=checked_as_of, help="By what was known here then; default: now."
    ),
]
CategoryOption = Annotated[str, typer.Option("--category", metavar="NAME", help="Only this category.")]
SeriesOption = Annotated[str, typer.Option("--series", metavar="TICKER", help="Only this series.")]
StatusOption = Annotated[
    str,
    typer.Option(
        "--status",
        callback=_checked_status,
        metavar="STATUS",
        help="listed, closed, determined, settled, delisted, or all; default: all but delisted.",
    ),
]
ExpiringOption = Annotated[
    str, typer.Option("--expiring-within", metavar="LENGTH", callback=checked_span, help='Such as "36h" or "7d".')
]


@app.command("sync", epilog=examples("ssmd secmaster sync", "ssmd secmaster sync --changes", "ssmd secmaster sync --dry-run"))
def sync(
    ctx: typer.Context,
    is_changes: Annotated[bool, typer.Option("--changes", help="Only what the venue changed since the last run.")] = False,
    series: Annotated[
        list[str] | None, typer.Option("--series", metavar="TICKER", help="Only this series; repeatable.")
    ] = None,
    is_dry: Annotated[bool, typer.Option("--dry-run", help="Compare, and write nothing.")] = False,
    output: OutputOption = Format.TABLE,
) -> None:
    """Compare the venue's list of markets with the journal's, and write what differs. Combos are left out."""
    from ssmd.identifiers import system_random  # noqa: PLC0415 - keeps --help quick
    from ssmd.wiring.secmaster import SyncPlan, run_sync  # noqa: PLC0415 - as above

    invocation = invocation_of(ctx)
    progress = ProgressLine()
    plan = SyncPlan(is_full=not is_changes, series=tuple(series or ()), is_dry=is_dry)
    try:
        counts = run(
            run_sync(
                invocation.resolve(),
                invocation.variables,
                plan,
                clock=invocation.clock,
                random=system_random,
                actor=invocation.actor(),
                say=lambda compared, written: progress(f"markets compared, {thousands(written)} events", compared, 0),
            )
        )
    finally:
        progress.end()
    if output is Format.JSON:
        print_json(counts)
        return
    verb = "would be " if is_dry else ""
    print_fields(
        invocation,
        [
            ("markets compared", f"{thousands(counts.markets)} in {thousands(counts.events)} events"),
            (f"{verb}listed", thousands(counts.listed)),
            (f"{verb}changed", thousands(counts.changed)),
            (f"{verb}closed or settled", thousands(counts.closed)),
            (f"{verb}delisted", thousands(counts.delisted)),
            ("requests", thousands(counts.requests)),
        ],
    )


@app.command(
    "list", epilog=examples("ssmd secmaster list --series KXBTC15M", "ssmd secmaster list --expiring-within 2h -o json")
)
def list_markets(
    ctx: typer.Context,
    feed: FeedOption = "",
    category: CategoryOption = "",
    series: SeriesOption = "",
    status: StatusOption = "",
    expiring_within: ExpiringOption = "",
    as_of: ValidOption = "",
    known_at: KnownOption = "",
    limit: Annotated[int, typer.Option("--limit", "-n", min=0, help="At most so many; 0 = all.")] = LIMIT,
    output: OutputOption = Format.TABLE,
) -> None:
    """List markets by ticker."""
    from ssmd.projections.market_filter import MarketFilter  # noqa: PLC0415 - keeps --help quick

    invocation = invocation_of(ctx)
    moment = as_of_given(as_of)
    at_ns = invocation.clock.now_ns() if moment is None or moment.ts_ns is None else moment.ts_ns
    wanted = MarketFilter(
        category=category,
        series=series,
        status=status,
        at_ns=at_ns,
        within_ns=span_ns(expiring_within) if expiring_within else None,
    )
    rows = [row for row in _rows(invocation, feed, wanted, as_of, known_at) if wanted.fits(row)]
    _show_rows(invocation, rows, limit, output)


@app.command("search", epilog=examples("ssmd secmaster search bitcoin", "ssmd secmaster search 'new york' --status listed"))
def search(
    ctx: typer.Context,
    text: Annotated[str, typer.Argument(metavar="TEXT", help="Words; each must be in the ticker, a title or the rules.")],
    feed: FeedOption = "",
    status: StatusOption = "",
    limit: Annotated[int, typer.Option("--limit", "-n", min=0, help="At most so many; 0 = all.")] = LIMIT,
    output: OutputOption = Format.TABLE,
) -> None:
    """Find markets by words, in any case and order. Exit status 1 if there is none."""
    from ssmd.projections.market_filter import MarketFilter  # noqa: PLC0415 - keeps --help quick

    invocation = invocation_of(ctx)
    wanted = MarketFilter(status=status, at_ns=invocation.clock.now_ns(), words=tuple(text.casefold().split()))
    rows = [row for row in _rows(invocation, feed, wanted) if wanted.fits(row)]
    _show_rows(invocation, rows, limit, output)
    if not rows:
        raise typer.Exit(NO)


@app.command("show", epilog=examples("ssmd secmaster show KXBTC15M-26MAY140045-45 --as-of 2026-05-14T04:44Z"))
def show(
    ctx: typer.Context,
    ticker: Annotated[str, typer.Argument(metavar="TICKER", help="The market.")],
    feed: FeedOption = "",
    as_of: ValidOption = "",
    known_at: KnownOption = "",
    output: OutputOption = Format.TABLE,
) -> None:
    """Show one market's master data: as it is, or as it was then, by what was known then. Exit status 1 if there is none."""
    from ssmd.projections import queries  # noqa: PLC0415 - keeps --help quick

    invocation = invocation_of(ctx)
    environment = invocation.resolve()
    name = feed_of(environment, feed)
    if as_of or known_at:
        found = [row for row in _rows_at(invocation, name, as_of, known_at) if row.market.ticker == ticker]
    else:
        found = ask(invocation, environment, lambda views: queries.secmaster(views, name, ticker=ticker), "secmaster")
    if not found:
        say(f"no market {ticker} of {name} was known{' then' if as_of or known_at else ''}")
        raise typer.Exit(NO)
    (row,) = found
    if output is Format.JSON:
        print_json(row)
        return
    market = row.market
    print_fields(
        invocation,
        [
            ("ticker", market.ticker),
            ("title", market.title),
            ("event", row.event),
            ("series", market.series),
            ("category", market.category),
            ("status", "delisted" if row.is_delisted else row.stage),
            *([("result", row.result)] if row.result else []),
            *([("settlement value", row.value)] if row.value else []),
            ("opens", time_of(market.open_ns)),
            ("closes", time_of(market.close_ns)),
            ("expires", time_of(market.expiry_ns)),
            *sorted(market.attributes.items()),
            ("known since", time_of(row.listed_ns)),
            ("changed", f"{time_of(row.changed_ns)} (journal position {row.position})"),
        ],
    )


@app.command("history", epilog=examples("ssmd secmaster history KXBTC15M-26MAY140045-45"))
def history(
    ctx: typer.Context,
    ticker: Annotated[str, typer.Argument(metavar="TICKER", help="The market.")],
    feed: FeedOption = "",
    known_at: KnownOption = "",
    output: OutputOption = Format.TABLE,
) -> None:
    """Show everything that became known of a market: since when it was true, when it was known, and what."""
    from ssmd.cli.secmaster_history import history_lines  # noqa: PLC0415 - keeps --help quick
    from ssmd.domain.catalogue import CATALOGUE  # noqa: PLC0415 - as above
    from ssmd.projections.market_history import listing_events  # noqa: PLC0415 - as above

    invocation = invocation_of(ctx)
    name = feed_of(invocation.resolve(), feed)

    async def asked(journal: Journal) -> list[dict[str, object]]:
        events = listing_events(journal, CATALOGUE, name, as_of_given(known_at))
        return [line async for line in history_lines(events, ticker)]

    lines = _read(invocation, asked)
    if output is Format.JSON:
        print_json(lines)
    else:
        print_table(
            invocation,
            ["true since (UTC)", "known since (UTC)", "who", "what"],
            [(time_of(line["valid_ns"]), time_of(line["known_ns"]), line["actor"], line["what"]) for line in lines],  # type: ignore[arg-type]
            empty=f"nothing is known of a market {ticker} of {name}",
        )
    if not lines:
        raise typer.Exit(NO)


@app.command("export", epilog=examples("ssmd secmaster export --format csv > markets.csv"))
def export(
    ctx: typer.Context,
    feed: FeedOption = "",
    form: Annotated[str, typer.Option("--format", metavar="csv|jsonl", help="Form of the lines.")] = "jsonl",
    as_of: ValidOption = "",
    known_at: KnownOption = "",
) -> None:
    """Write every market to stdout, one a line, by ticker; delisted ones too."""
    from ssmd.cli.secmaster_history import write_rows  # noqa: PLC0415 - keeps --help quick
    from ssmd.projections.market_filter import MarketFilter  # noqa: PLC0415 - as above

    if form not in {"csv", "jsonl"}:
        raise typer.BadParameter(f"{form!r} is not one of 'csv', 'jsonl'", param_hint="--format")
    invocation = invocation_of(ctx)
    write_rows(_rows(invocation, feed, MarketFilter(status="all"), as_of, known_at), form)


def _rows(invocation: Invocation, feed: str, wanted: MarketFilter, as_of: str = "", known_at: str = "") -> list[MarketRow]:
    from ssmd.projections import queries  # noqa: PLC0415 - keeps --help quick

    environment = invocation.resolve()
    name = feed_of(environment, feed)
    if as_of or known_at:
        return _rows_at(invocation, name, as_of, known_at)
    return ask(
        invocation,
        environment,
        lambda views: queries.secmaster(views, name, category=wanted.category, series=wanted.series),
        "secmaster",
    )


def _rows_at(invocation: Invocation, feed: str, as_of: str, known_at: str) -> list[MarketRow]:
    from ssmd.domain.catalogue import CATALOGUE  # noqa: PLC0415 - keeps --help quick
    from ssmd.projections.market_history import markets_at  # noqa: PLC0415 - as above

    moment = as_of_given(as_of)
    valid_ns = invocation.clock.now_ns() if moment is None or moment.ts_ns is None else moment.ts_ns
    return _read(invocation, lambda journal: markets_at(journal, CATALOGUE, feed, valid_ns, as_of_given(known_at)))


def _read(invocation: Invocation, question: Callable[[Journal], Awaitable[Answer]]) -> Answer:
    from ssmd.wiring.backends import reading_journal  # noqa: PLC0415 - keeps --help quick

    async def asked() -> Answer:
        async with reading_journal(invocation.resolve(), invocation.variables, say) as journal:
            return await question(journal)

    return run(asked())


def _show_rows(invocation: Invocation, rows: list[MarketRow], limit: int, output: Format) -> None:
    shown = rows[:limit] if limit else rows
    if output is Format.JSON:
        print_json(shown)
    else:
        print_table(
            invocation,
            ["ticker", "status", "series", "category", "closes", "title"],
            [
                (
                    row.market.ticker,
                    "delisted" if row.is_delisted else f"{row.stage} {row.result}".rstrip(),
                    row.market.series,
                    row.market.category,
                    time_of(row.market.close_ns),
                    row.market.title,
                )
                for row in shown
            ],
            empty="no market fits",
        )
    if len(shown) < len(rows):
        say(f"{thousands(len(shown))} of {thousands(len(rows))} markets are shown; all: --limit 0")
