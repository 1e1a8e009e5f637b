"""`ssmd simulate`: a venue of your own on loopback."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from ssmd.cli.help_text import examples
from ssmd.cli.invocation import checked_date, invocation_of
from ssmd.cli.output import Format, OutputOption, print_json_line, say

if TYPE_CHECKING:
    from ssmd.services.simulator.config import SimulatorConfig
    from ssmd.wiring.simulate import OwnKey

if TYPE_CHECKING:
    from ssmd.wiring.simulate import OwnKey

app = typer.Typer(
    add_completion=False, rich_markup_mode=None, no_args_is_help=True, help="Run a venue of your own on loopback."
)


def tell_started(urls: Mapping[str, str], key: OwnKey | None) -> None:
    """Where a venue answers and with which key, for people."""
    for name, url in urls.items():
        say(f"{name:<10} {url}")
    if key is not None:
        say(f"{'key id':<10} {key.key_id}")
        say(f"{'key':<10} jq -r .private_key {key.path} > key.pem")
    say("Ctrl-C stops it")


def _checked_preset(given: str) -> str:
    if given not in {"", "median", "p99", "peak", "measured", "exchange"}:
        raise typer.BadParameter(f"{given!r} is none of median, p99, peak, measured, exchange")
    return given


@app.callback()
def _group() -> None:
    """Run a venue of your own on loopback."""


@app.command(
    "kalshi",
    epilog=examples(
        "ssmd simulate kalshi --seed 7 --markets 50 --port 9700",
        "ssmd simulate kalshi --preset exchange",
        "ssmd simulate kalshi --capture frames.jsonl.zst --speed 10x",
        "ssmd simulate kalshi --date 2026-05-14 --env kalshi-prod",
        'curl -d \'{"kind": "drop-connection"}\' http://127.0.0.1:9700/simulator/faults',
        'curl -d \'{"kind": "close", "count": 3}\' http://127.0.0.1:9700/simulator/orders',
    ),
)
def kalshi(
    ctx: typer.Context,
    capture: Annotated[Path | None, typer.Option("--capture", help="Play this .jsonl or .jsonl.zst, not a model.")] = None,
    date: Annotated[
        str, typer.Option("--date", metavar="DATE", help="Play this archived day of the environment.", callback=checked_date)
    ] = "",
    seed: Annotated[int | None, typer.Option("--seed", help="Of the model; default 1.")] = None,
    markets: Annotated[int | None, typer.Option("--markets", min=1, max=100_000, help="Of the model; default 20.")] = None,
    preset: Annotated[
        str,
        typer.Option(
            "--preset",
            metavar="NAME",
            help="Load as measured: median, p99, peak, measured, or exchange (20,000 markets).",
            callback=_checked_preset,
        ),
    ] = "",
    history: Annotated[
        int, typer.Option("--history", metavar="SECONDS", min=0, max=30 * 86_400, help="Of the model, before the start.")
    ] = 0,
    speed: Annotated[str, typer.Option("--speed", metavar="1x|Nx|max", help="How fast time goes.")] = "1x",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0 = any free one.")] = 0,
    public_key: Annotated[
        list[str] | None,
        typer.Option("--public-key", metavar="ID=FILE", help="Let this key in too (PEM); may be repeated."),
    ] = None,
    settings: Annotated[
        Path | None,
        typer.Option("--settings", metavar="FILE", help="JSON with any of the simulator's settings, faults and orders too."),
    ] = None,
    no_auth: Annotated[bool, typer.Option("--no-auth", help="Check no signature.")] = False,
    output: OutputOption = Format.TABLE,
) -> None:
    """Serve Kalshi's REST and WebSocket until interrupted, from a capture, an archived day or a seeded market model.

    Signatures are checked against a key made for this workspace, and against --public-key. Faults on demand: POST to
    /simulator/faults a kind (drop-connection, drop-frame, duplicate-frame, stall, bad-json, rest-429, rest-500, ...), with
    after_frames, count, stall_ms where wanted. Markets change on demand: POST to /simulator/orders a kind (close, pause,
    resume, extend, determine, dispute, amend, list, combo, vanish, pause-trading, ...), with ticker or count.
    """
    from ssmd.identifiers import system_random  # noqa: PLC0415 - keeps --help quick
    from ssmd.telemetry.logging import configure_logging  # noqa: PLC0415 - as above
    from ssmd.wiring.simulate import own_key, read_public_keys, run_simulator  # noqa: PLC0415 - as above

    wanted = _Wanted(capture, date, seed, markets, preset, history, speed, port)
    wanted.check()
    invocation = invocation_of(ctx)
    keys = read_public_keys(public_key or [])
    key = None if no_auth else own_key(invocation.workspace, system_random)
    if key is not None:
        keys[key.key_id] = key.public_pem
    config = wanted.config(settings, keys, has_auth=not no_auth)
    configure_logging("simulator", invocation.clock, sys.stderr, level="warning")
    if not date:
        run_simulator(config, invocation.clock, lambda urls: _tell(urls, key, output))
        return
    from ssmd.wiring.archive_access import run_day  # noqa: PLC0415 - keeps --help quick

    run_day(invocation.resolve(), invocation.variables, date, config, invocation.clock, lambda urls: _tell(urls, key, output))


class _Wanted(NamedTuple):
    """What the options ask for; see there."""

    capture: Path | None
    date: str
    seed: int | None
    markets: int | None
    preset: str
    history: int
    speed: str
    port: int

    def check(self) -> None:
        """Refuse options that exclude each other."""
        is_played = self.capture is not None or self.date
        if is_played and (self.seed is not None or self.markets is not None):
            raise typer.BadParameter("--seed and --markets belong to the model, not to --capture and --date")
        if is_played and (self.preset or self.history):
            raise typer.BadParameter("--preset and --history belong to the model, not to --capture and --date")
        if self.capture is not None and self.date:
            raise typer.BadParameter("--capture or --date, not both")

    def config(self, settings: Path | None, keys: Mapping[str, str], *, has_auth: bool) -> SimulatorConfig:
        """The settings of the file, under those of the options that were given."""
        import msgspec  # noqa: PLC0415 - keeps --help quick

        from ssmd.services.simulator.config import SimulatorConfig  # noqa: PLC0415 - as above
        from ssmd.wiring.simulate import read_settings  # noqa: PLC0415 - as above

        base = read_settings(settings) if settings is not None else SimulatorConfig()
        given: dict[str, object] = {
            "port": self.port,
            "capture": "" if self.capture is None else str(self.capture),
            "speed": "" if self.speed == "1x" else self.speed,
            "seed": self.seed,
            "markets": self.markets,
            "preset": self.preset,
            "history_s": self.history,
        }
        return msgspec.structs.replace(
            base,
            **{name: value for name, value in given.items() if value not in {None, "", 0} or (name == "seed" and value == 0)},
            public_keys={**base.public_keys, **keys},
            require_auth=base.require_auth and has_auth,
        )


def _tell(urls: Mapping[str, str], key: OwnKey | None, output: Format) -> None:
    """Where it serves, and the key to knock with."""
    if output is Format.JSON:
        print_json_line({**urls, "key_id": key.key_id if key else "", "key_file": str(key.path) if key else ""})
        return
    for name, url in urls.items():
        say(f"{name:<10} {url}")
    if key is not None:
        say(f"{'key id':<10} {key.key_id}")
        say(f"{'key':<10} jq -r .private_key {key.path} > key.pem")
    say("Ctrl-C stops it")
