"""`ssmd data book`: a ticker's order book at an instant."""

from __future__ import annotations

from itertools import zip_longest
from typing import TYPE_CHECKING, Annotated

import typer

from ssmd.cli.archive_options import FeedOption, MapperOption, feed_of, instant
from ssmd.cli.help_text import examples
from ssmd.cli.invocation import invocation_of, run
from ssmd.cli.output import Format, OutputOption, print_fields, print_json, print_table, time_of

if TYPE_CHECKING:
    from ssmd.transforms.book_at import BookAt

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command(
    "book",
    epilog=examples(
        "ssmd data book --ticker KXBTC15M-26MAY141445-45 --at 2026-05-14T18:40:00Z",
        "ssmd data book --ticker T --at 2026-05-14T18:40:00.25 --depth 5 -o json",
    ),
)
def book(
    ctx: typer.Context,
    ticker: Annotated[str, typer.Option("--ticker", metavar="TICKER", help="Whose book.")],
    at: Annotated[str, typer.Option("--at", metavar="TIME", help="RFC 3339 in UTC, or nanoseconds; inclusive.")],
    feed: FeedOption = "",
    depth: Annotated[int, typer.Option("--depth", min=0, help="Levels a side; 0 = all.")] = 10,
    mapper: MapperOption = 0,
    output: OutputOption = Format.TABLE,
) -> None:
    """Show a book as it was known at an instant, and whether anything speaks against it."""
    from ssmd.clock import DayCalendar  # noqa: PLC0415 - keeps --help quick
    from ssmd.transforms.book_at import book_at  # noqa: PLC0415
    from ssmd.wiring.archive_access import reading_storage, wanted_of  # noqa: PLC0415

    invocation = invocation_of(ctx)
    environment = invocation.resolve()
    feed_of(environment, feed)
    at_ns = instant(at, invocation.today, "--at")
    day, _ = DayCalendar(environment.document.timezone).day_of(at_ns)

    async def asked() -> BookAt:
        async with reading_storage(environment, invocation.variables) as storage:
            return await book_at(storage, wanted_of(environment, day, mapper=mapper), ticker, at_ns, depth)

    found = run(asked())
    if output is Format.JSON:
        print_json(found)
        return
    print_fields(
        invocation,
        [
            ("ticker", found.ticker),
            ("at", time_of(found.at_ns)),
            ("snapshot", f"{time_of(found.snapshot_ns)} and {found.deltas:,} changes, the last at {time_of(found.last_ns)}"),
            ("sequence", f"{found.seq_first}..{found.seq_last} of subscription {found.sid}, session {found.session}"),
            ("digest", found.digest),
            ("verified", "yes" if found.verified else f"no: {'; '.join(found.reasons)}"),
        ],
    )
    print_table(
        invocation,
        [">bid size", ">bid", ">ask", ">ask size"],
        [(bid[1], bid[0], ask[0], ask[1]) for bid, ask in zip_longest(found.bids, found.asks, fillvalue=("", ""))],
        empty="no level on either side",
    )
