"""A command group that lists its commands without importing them, and takes global options wherever they stand.

Of a group below it only the command that is called is made: making all of `ssmd data` took longer than most of its answers.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from importlib import import_module
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import typer
from typer.core import TyperGroup


class LazyCommand(NamedTuple):
    """A command or group to be: `module` holds a Typer called `app` with it.

    Attributes:
        parts: commands of the group that stand in modules of their own, as `app`'s too: each can do without the others.
    """

    name: str
    module: str
    help: str
    parts: Mapping[str, str] = MappingProxyType({})


_DATA: Final = MappingProxyType(
    {
        "backfill": "ssmd.cli.data_backfill",
        "book": "ssmd.cli.data_book",
        "export": "ssmd.cli.data_export",
        "index": "ssmd.cli.data_index",
        "intervals": "ssmd.cli.data_intervals",
        "prune": "ssmd.cli.data_prune",
        "quality": "ssmd.cli.data_quality",
        "renormalize": "ssmd.cli.data_renormalize",
        "repair-gaps": "ssmd.cli.data_repair_gaps",
        "replay": "ssmd.cli.data_replay",
        "sample": "ssmd.cli.data_replay",
        "verify": "ssmd.cli.data_verify",
    }
)


COMMANDS: Final = (
    LazyCommand("demo", "ssmd.cli.demo", "Run the whole main job against the simulator, and show what it holds."),
    LazyCommand("up", "ssmd.cli.up", "Run an environment on this machine until stopped."),
    LazyCommand("status", "ssmd.cli.status", "Show a whole environment on one screen."),
    LazyCommand("record", "ssmd.cli.record", "Record a few markets, with nothing to set up."),
    LazyCommand("init", "ssmd.cli.init", "Make a workspace."),
    LazyCommand("env", "ssmd.cli.env", "Create, change, choose, show, apply and tear down environments."),
    LazyCommand("feed", "ssmd.cli.feed", "Create, change and show feeds."),
    LazyCommand("schema", "ssmd.cli.schema", "Register, change and show record definitions."),
    LazyCommand("validate", "ssmd.cli.validate", "Check every document of the registry."),
    LazyCommand("diff", "ssmd.cli.diff", "Show uncommitted changes of the registry, in meaning."),
    LazyCommand("commit", "ssmd.cli.commit", "Commit the registry's changes, and nothing else."),
    LazyCommand("config", "ssmd.cli.config", "Which configuration was live when."),
    LazyCommand("day", "ssmd.cli.day", "Start, end and show trading days."),
    LazyCommand("secmaster", "ssmd.cli.secmaster", "Which markets there are, and what became of them."),
    LazyCommand("data", "ssmd.cli.data", "What is stored, and what is missing.", _DATA),
    LazyCommand("key", "ssmd.cli.key", "Secrets of an environment: set, check, rotate."),
    LazyCommand("client", "ssmd.cli.client", "API keys of the gateway, and their connections."),
    LazyCommand("watch", "ssmd.cli.watch", "Show a market's book and trades as they change."),
    LazyCommand("journal", "ssmd.cli.journal", "Read the events themselves."),
    LazyCommand("projection", "ssmd.cli.projection", "Check, rebuild and roll back the views of the journal."),
    LazyCommand("dlq", "ssmd.cli.dlq", "What could not be processed: look, replay, discard."),
    LazyCommand("streams", "ssmd.cli.streams", "Create, compare and show the NATS streams."),
    LazyCommand("tape", "ssmd.cli.tape", "Show, verify and republish the connector's log."),
    LazyCommand("simulate", "ssmd.cli.simulate", "Run a venue of your own on loopback."),
    LazyCommand("chaos", "ssmd.cli.chaos", "Kill processes on purpose, and prove that nothing is lost."),
    LazyCommand("doctor", "ssmd.cli.doctor", "Check this machine and an environment, and say what to do."),
    LazyCommand("backup", "ssmd.cli.backup", "Copy journal and registry somewhere else, and bring them back."),
    LazyCommand("connector", "ssmd.cli.connector", "Run the connector process alone."),
    LazyCommand("archiver", "ssmd.cli.archiver", "Run one archiver process alone."),
    LazyCommand("projector", "ssmd.cli.projector", "Run the projector process alone."),
    LazyCommand("gateway", "ssmd.cli.gateway", "Run the gateway process alone."),
    LazyCommand("worker", "ssmd.cli.worker", "Run the worker process alone: trading days and syncs by Temporal."),
)
_BY_NAME: Final = {command.name: command for command in COMMANDS}

_WITH_VALUE: Final = frozenset({"--env", "-e", "--workspace"})
_FLAGS: Final = frozenset({"--debug", "--no-color"})


def hoisted(arguments: Sequence[str]) -> list[str]:
    """`arguments` with the global options first, so that they may stand behind the command too. Behind -- nothing is one."""
    front: list[str] = []
    rest: list[str] = []
    waiting = list(arguments)
    while waiting:
        argument = waiting.pop(0)
        if argument == "--":
            rest += [argument, *waiting]
            break
        if argument in _FLAGS or argument.startswith(("--env=", "--workspace=")):
            front.append(argument)
        elif argument in _WITH_VALUE and waiting:
            front += [argument, waiting.pop(0)]
        else:
            rest.append(argument)
    return [*front, *rest]


class LazyGroup(TyperGroup):
    """The root group of `ssmd`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, hoisted(args))

    def list_commands(self, ctx: Any) -> list[str]:
        del ctx
        return [command.name for command in COMMANDS]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        del ctx
        found = _BY_NAME.get(cmd_name)
        if found is None:
            return None
        self.commands[cmd_name] = self.commands.get(cmd_name) or _loaded(found)
        return self.commands[cmd_name]

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        # Suggestions for a mistyped command are made from `commands`.
        for name in _BY_NAME:
            self.commands.setdefault(name, None)  # type: ignore[arg-type]  # only the names are looked at
        found = _BY_NAME.get(args[0]) if len(args) > 1 else None
        if found is not None:
            self.commands[found.name] = self.commands[found.name] or _loaded(found, args[1])
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(command.name, command.help) for command in COMMANDS])


def _loaded(command: LazyCommand, wanted: str = "") -> Any:
    """The command; of a group only its command `wanted`, where it has one of that name."""
    app = import_module(command.parts.get(wanted, command.module)).app
    alone = [one for one in app.registered_commands if one.name == wanted]
    if alone and (wanted in command.parts or len(app.registered_commands) > 1):
        app = copy.copy(app)
        app.registered_commands, app.registered_groups = alone, []
        loaded: Any = typer.main.get_group(app)
    else:
        loaded = typer.main.get_command(app)
    loaded.name = command.name
    return loaded
