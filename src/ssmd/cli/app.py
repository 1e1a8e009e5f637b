"""`ssmd`: the root of the command line. What a command needs is imported when it is called."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from ssmd import __version__
from ssmd.cli.completion import complete_environment
from ssmd.cli.exit_status import OK, TROUBLE, tell, write_error
from ssmd.cli.help_text import examples
from ssmd.cli.invocation import Invocation, begin
from ssmd.cli.lazy_group import LazyGroup

app = typer.Typer(
    name="ssmd",
    cls=LazyGroup,
    rich_markup_mode=None,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"ssmd {__version__}\n")
        raise typer.Exit(OK)


@app.callback(
    epilog=examples("ssmd demo", "ssmd up kalshi-dev", "ssmd data gaps --feed kalshi --date 2026-05-14")
    + "\n\nThe options above may stand behind the command as well."
)
def root(
    ctx: typer.Context,
    env: Annotated[
        str,
        typer.Option(
            "--env",
            "-e",
            metavar="NAME",
            help="The environment meant. Else SSMD_ENV, else `ssmd env use`, else the only one.",
            autocompletion=complete_environment,
        ),
    ] = "",
    workspace: Annotated[
        str,
        typer.Option("--workspace", metavar="DIR", help="Directory that holds exchanges/. Else SSMD_WORKSPACE, else upwards."),
    ] = "",
    no_color: Annotated[bool, typer.Option("--no-color", help="No colours, as with NO_COLOR set.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")] = False,
) -> None:
    """Capture prediction markets, and know what is stored, what is missing and what happened."""
    del debug, version  # read by `main` and by its callback
    ctx.obj = begin(Invocation(env=env, workspace_given=workspace, color=not no_color, command=ctx.invoked_subcommand or ""))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line; its exit status (`cli.exit_status`)."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given
    status = _status(given, debug=debug)
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _silence_stdout()
    return status


def _status(given: list[str], *, debug: bool) -> int:
    command = typer.main.get_command(app)
    try:
        result = command.main(args=given, prog_name="ssmd", standalone_mode=False)
    except BrokenPipeError:
        _silence_stdout()
        return OK
    except SystemExit as error:
        if isinstance(error.__context__, BrokenPipeError):  # Typer's own answer to a reader that left
            _silence_stdout()
            return OK
        # Completion ends so.
        return error.code if isinstance(error.code, int) else TROUBLE
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - the edge: every error becomes a message and a status
        return _usage_status(error) if _is_usage(error) else tell(error, debug=debug)
    return result if isinstance(result, int) and not isinstance(result, bool) else OK


def _is_usage(error: BaseException) -> bool:
    """Whether Typer refused the command line (it keeps its exception types to itself)."""
    return hasattr(error, "format_message") and hasattr(error, "exit_code")


def _usage_status(error: Any) -> int:
    context = getattr(error, "ctx", None)
    if type(error).__name__ == "NoArgsIsHelpError":
        sys.stderr.write(f"{error.format_message()}\n")
        return TROUBLE
    write_error(error.format_message(), f"{context.command_path if context is not None else 'ssmd'} --help")
    return TROUBLE


def _silence_stdout() -> None:
    """Nobody reads any more: let the interpreter's last flush go nowhere instead of failing."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
