"""`ssmd diff`: uncommitted changes of the registry, in meaning."""

from __future__ import annotations

from typing import Annotated

import typer

from ssmd.cli.exit_status import NO, OK
from ssmd.cli.help_text import examples
from ssmd.cli.invocation import invocation_of
from ssmd.cli.output import Format, OutputOption, print_json, print_table, say
from ssmd.cli.registry_output import shown

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command("diff", epilog=examples("ssmd diff", "ssmd diff --from HEAD~3 -o json"))
def diff(
    ctx: typer.Context,
    from_: Annotated[str, typer.Option("--from", metavar="COMMIT", help="Compare with this commit.")] = "HEAD",
    output: OutputOption = Format.TABLE,
) -> int:
    """Show which fields changed, which environments, streams, keys and days that touches, and what must be restarted.

    Exit status: 0 nothing changed, 1 something did.
    """
    from ssmd.registry.git import Git  # noqa: PLC0415 - keeps --help quick
    from ssmd.registry.meaning import meaning_of  # noqa: PLC0415
    from ssmd.registry.tree import read_tree, tree_of_files  # noqa: PLC0415
    from ssmd.services.run_file import live_run  # noqa: PLC0415

    invocation = invocation_of(ctx)
    workspace = invocation.workspace
    git = Git(workspace.root)
    git.need()
    is_first = from_ == "HEAD" and not git.head()
    old = tree_of_files(workspace.registry, {}) if is_first else git.tree(from_)
    meaning = meaning_of(old, read_tree(workspace.registry), date=invocation.today)
    running = {one.environment for one in meaning.impacts if live_run(workspace.environment(one.environment)) is not None}
    is_changed = bool(meaning.fields or meaning.unread)
    if output is Format.JSON:
        print_json(
            {
                "fields": [one._asdict() for one in meaning.fields],
                "environments": [{**one._asdict(), "is_running": one.environment in running} for one in meaning.impacts],
                "texts": meaning.texts,
                "unread": meaning.unread,
            }
        )
        return NO if is_changed else OK
    if meaning.fields:
        print_table(
            invocation,
            ["document", "field", "old", "new"],
            [(one.document, one.field or "the document", shown(one.old), shown(one.new)) for one in meaning.fields],
        )
    if meaning.impacts:
        typer.echo()
        print_table(
            invocation,
            ["environment", "what", "streams", "keys", "days", "running", "must restart for"],
            [
                (
                    one.environment,
                    one.what,
                    ", ".join(one.streams),
                    ", ".join(one.keys),
                    one.days,
                    one.environment in running,
                    ", ".join(one.reasons),
                )
                for one in meaning.impacts
            ],
        )
    for name in meaning.texts:
        say(f"{name}: the text changed, not its meaning")
    for name in meaning.unread:
        say(f"{name} cannot be read: ssmd validate")
    if not is_changed:
        say("nothing changed in meaning")
    return NO if is_changed else OK
