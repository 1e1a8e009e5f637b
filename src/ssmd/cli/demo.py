"""`ssmd demo`: the whole main job, in a workspace of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ssmd.cli.help_text import examples
from ssmd.cli.output import Format, OutputOption

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command("demo", epilog=examples("ssmd demo", "ssmd demo --capture frames.jsonl.zst -o json"))
def demo(
    capture: Annotated[
        Path | None,
        typer.Option("--capture", help="Capture these frames (.jsonl, .jsonl.zst) instead of a seeded market; kills nothing."),
    ] = None,
    keep: Annotated[Path | None, typer.Option("--keep", help="Where its data stays; default: .ssmd/demo.")] = None,
    output: OutputOption = Format.TABLE,
) -> int:
    """Capture a simulated market, kill the connector, name the hole, rebuild the views, show what is held."""
    from ssmd.wiring.demo import run_demo  # noqa: PLC0415 - keeps --help quick

    return run_demo(capture=capture, keep=keep, output=output.value)
