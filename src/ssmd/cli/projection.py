"""`ssmd projection`: the views of the journal: where they stand, whether they are right, made anew."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from ssmd.cli.as_of import AsOfOption, as_of_given
from ssmd.cli.exit_status import NO
from ssmd.cli.help_text import examples
from ssmd.cli.invocation import Invocation, invocation_of, run
from ssmd.cli.output import Format, OutputOption, print_json, print_table, say, thousands

if TYPE_CHECKING:
    from ssmd.projections.projection import Projection
    from ssmd.projections.store import RowStore
    from ssmd.services.projection_record import ProjectionRecord
    from ssmd.streams.journal import Journal

Answer = TypeVar("Answer")

app = typer.Typer(
    add_completion=False, rich_markup_mode=None, no_args_is_help=True, help="Views of the journal: check, rebuild, roll back."
)

NameArgument = Annotated[str, typer.Argument(metavar="[NAME]", help="A view, see `ssmd projection list`.")]
AllOption = Annotated[bool, typer.Option("--all", help="Every view.")]


def _chosen(name: str, *, is_all: bool) -> list[Projection]:
    from ssmd.errors import Rejected  # noqa: PLC0415 - keeps --help quick
    from ssmd.projections.views import PROJECTIONS  # noqa: PLC0415 - as above

    if is_all == bool(name):
        raise Rejected("which-projection", "give the name of one view, or --all", mend="ssmd projection list")
    found = [one for one in PROJECTIONS if is_all or one.name == name]
    if not found:
        raise Rejected("no-such-projection", f'there is no view "{name}"', mend="ssmd projection list")
    return found


def _keep(invocation: Invocation, work: Callable[[Journal, RowStore, ProjectionRecord], Awaitable[Answer]]) -> Answer:
    """Run `work` on the environment's journal and row store, with a record of what it does."""
    from ssmd.application.handler import Application  # noqa: PLC0415 - keeps --help quick
    from ssmd.domain.catalogue import CATALOGUE  # noqa: PLC0415 - as above
    from ssmd.identifiers import system_random  # noqa: PLC0415 - as above
    from ssmd.services.projection_record import ProjectionRecord  # noqa: PLC0415 - as above
    from ssmd.wiring.views import keeping_views  # noqa: PLC0415 - as above

    environment = invocation.resolve()

    async def kept() -> Answer:
        async with keeping_views(environment, invocation.variables, say) as (journal, store):
            application = Application(journal, CATALOGUE, invocation.clock, system_random, environment.config)
            return await work(journal, store, ProjectionRecord(application, invocation.actor()))

    return run(kept())


@app.command("list", epilog=examples("ssmd projection list"))
def list_projections(ctx: typer.Context, output: OutputOption = Format.TABLE) -> None:
    """List the views this program folds, and of what."""
    from ssmd.projections.views import PROJECTIONS  # noqa: PLC0415 - keeps --help quick

    if output is Format.JSON:
        print_json([{"name": one.name, "version": one.version, "aggregates": sorted(one.aggregates)} for one in PROJECTIONS])
        return
    rows = [(one.name, one.version, ", ".join(sorted(one.aggregates))) for one in PROJECTIONS]
    print_table(invocation_of(ctx), ["view", ">version", "folded of"], rows)


@app.command("status", epilog=examples("ssmd projection status", "ssmd projection status -o json"))
def status(ctx: typer.Context, output: OutputOption = Format.TABLE) -> None:
    """Show where each view stands in the journal. Exit status 1 if one is absent, of another version or has an omission."""
    from ssmd.projections.views import PROJECTIONS  # noqa: PLC0415 - keeps --help quick

    async def asked(
        journal: Journal, store: RowStore, _: ProjectionRecord
    ) -> tuple[int, list[tuple[Projection, dict[Any, Any]]]]:
        found = [(one, dict(await store.generations(one.name))) for one in PROJECTIONS]
        return await journal.head(), found

    head, found = _keep(invocation_of(ctx), asked)
    lines = [_status_line(head, view, generations) for view, generations in found]
    if output is Format.JSON:
        print_json({"head": head, "projections": lines})
    else:
        print_table(
            invocation_of(ctx),
            ["view", "state", ">version", ">position", ">lag", ">rows", ">passed over", "digest", "kept for rollback"],
            [
                (
                    line["name"],
                    line["state"],
                    line["version"],
                    thousands(line["position"]),
                    thousands(line["lag"]),
                    thousands(line["rows"]),
                    line["skipped"],
                    line["digest"][:16],
                    line["previous"],
                )
                for line in lines
            ],
            title=f"journal ends at position {thousands(head)}",
        )
    if any(line["state"] not in {"current", "behind"} for line in lines):
        raise typer.Exit(NO)


def _status_line(head: int, view: Projection, generations: dict[Any, Any]) -> dict[str, Any]:
    current, previous = generations.get("current"), generations.get("previous")
    if current is None:
        state = "absent"
    elif current.version != view.version:
        state = f"of version {current.version}, {view.version} is needed"
    elif current.position > head:
        state = f"ahead: events {head + 1}..{current.position} are lost from the journal"
    elif current.skipped:
        state = "has an omission"
    else:
        state = "current" if current.position == head else "behind"
    return {
        "name": view.name,
        "state": state,
        "version": view.version if current is None else current.version,
        "position": 0 if current is None else current.position,
        "lag": head if current is None else max(0, head - current.position),
        "rows": 0 if current is None else current.rows,
        "skipped": 0 if current is None else current.skipped,
        "digest": "" if current is None else current.digest,
        "generation": "" if current is None else current.generation,
        "previous": "" if previous is None else previous.generation,
        "is_rebuilding": "shadow" in generations,
    }


@app.command(
    "show",
    epilog=examples(
        "ssmd projection show dead-letters",
        "ssmd projection show quality partition/kalshi/2026-05-14",
        "ssmd projection show keys -o json --as-of 2026-05-14T13:00:00Z",
    ),
)
def show(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="A view, see `ssmd projection list`.")],
    key: Annotated[str, typer.Argument(metavar="[KEY]", help="Only rows whose key begins with this.")] = "",
    as_of: AsOfOption = "",
    limit: Annotated[int, typer.Option("--limit", min=1, metavar="ROWS", help="Show at most so many rows.")] = 1000,
    output: OutputOption = Format.TABLE,
) -> None:
    """Show a view's rows as they are kept, by key. Exit status 1 if there are none."""
    import msgspec  # noqa: PLC0415 - keeps --help quick

    from ssmd.wiring.views import asking_views  # noqa: PLC0415 - as above

    invocation = invocation_of(ctx)
    (view,) = _chosen(name, is_all=False)
    environment, moment = invocation.resolve(), as_of_given(as_of)

    async def asked() -> tuple[int, dict[str, bytes]]:
        async with asking_views(environment, invocation.variables, say, projections=[view], as_of=moment) as views:
            for warning in views.warnings():
                say(f"note: {warning}")
            return views.position, (await views.read(view.name, prefixes=[key])).rows

    position, rows = run(asked())
    shown = dict(list(rows.items())[:limit])
    if len(shown) < len(rows):
        say(f"note: {thousands(len(rows) - limit)} more rows are not shown (--limit, or name the beginning of a KEY)")
    if output is Format.JSON:
        print_json({"position": position, "rows": {key: msgspec.Raw(value) for key, value in shown.items()}})
    else:
        title = f"{view.name} at position {thousands(position)}"
        lines = [(key, value.decode()) for key, value in shown.items()]
        print_table(invocation, ["key", "row"], lines, title=title, empty=f"{title} has no such rows")
    if not rows:
        raise typer.Exit(NO)


@app.command("rebuild", epilog=examples("ssmd projection rebuild days", "ssmd projection rebuild --all"))
def rebuild(
    ctx: typer.Context,
    name: NameArgument = "",
    is_all: AllOption = False,
    is_lenient: Annotated[
        bool, typer.Option("--pass-over", help="Pass over events that cannot be folded, and record them as dead letters.")
    ] = False,
    output: OutputOption = Format.TABLE,
) -> None:
    """Fold the journal anew beside what readers see, and put it in its place. Exit status 1 if it diverged.

    The same version that folds to other rows is not put in place: readers keep what they have, the difference is an event.
    """
    views = _chosen(name, is_all=is_all)

    async def rebuilt(journal: Journal, store: RowStore, record: ProjectionRecord) -> list[Any]:
        built = []
        for view in views:
            outcome = await record.rebuild(journal, store, view, is_strict=not is_lenient)
            say(f"{view.name}: {outcome.outcome} at position {outcome.after.position}, {outcome.after.rows} rows")
            if outcome.after.skipped:
                await record.known_omissions(store, outcome.after)
            built.append(outcome)
        return built

    outcomes = _keep(invocation_of(ctx), rebuilt)
    if output is Format.JSON:
        print_json(
            [
                {
                    "projection": one.projection,
                    "outcome": one.outcome,
                    "before": None if one.before is None else one.before._asdict(),
                    "after": one.after._asdict(),
                    "is_regressed": one.is_regressed,
                }
                for one in outcomes
            ]
        )
    if any(one.outcome == "diverged" for one in outcomes):
        raise typer.Exit(NO)


@app.command("verify", epilog=examples("ssmd projection verify --all", "ssmd projection verify days -o json"))
def verify(
    ctx: typer.Context,
    name: NameArgument = "",
    is_all: AllOption = False,
    output: OutputOption = Format.TABLE,
) -> None:
    """Check that a view's rows add up to its digest, and that the journal gives the same. Exit status 1 if not."""
    views = _chosen(name, is_all=is_all)

    async def checked(journal: Journal, store: RowStore, _: ProjectionRecord) -> list[Any]:
        from ssmd.projections.rebuild import verify as verified  # noqa: PLC0415 - keeps --help quick

        return [await verified(journal, store, view) for view in views]

    found = _keep(invocation_of(ctx), checked)
    lines = [
        {
            "projection": one.stamp.projection,
            "is_good": one.is_good,
            "position": one.stamp.position,
            "digest": one.stamp.digest,
            "rows_digest": one.rows_digest,
            "journal_digest": one.journal_digest,
        }
        for one in found
    ]
    if output is Format.JSON:
        print_json(lines)
    else:
        print_table(
            invocation_of(ctx),
            ["view", "verdict", ">position", "digest"],
            [(line["projection"], _verdict(line), thousands(line["position"]), line["digest"][:16]) for line in lines],
        )
    if not all(line["is_good"] for line in lines):
        raise typer.Exit(NO)


def _verdict(line: dict[str, Any]) -> str:
    if line["is_good"]:
        return "good"
    return "rows were changed" if line["rows_digest"] != line["digest"] else "the journal folds to other rows"


@app.command("rollback", epilog=examples("ssmd projection rollback days --reason 'wrong totals'"))
def rollback(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="A view, see `ssmd projection list`.")],
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why, for the history.")] = "",
    output: OutputOption = Format.TABLE,
) -> None:
    """Show readers the generation before the current one again; a running projector then brings it up to date."""
    (view,) = _chosen(name, is_all=False)

    async def rolled_back(_: Journal, store: RowStore, record: ProjectionRecord) -> Any:
        return await record.rollback(store, view.name, reason)

    stamp = _keep(invocation_of(ctx), rolled_back)
    if output is Format.JSON:
        print_json(stamp._asdict())
    else:
        say(f"{view.name}: readers see generation {stamp.generation} (version {stamp.version}) at position {stamp.position}")
