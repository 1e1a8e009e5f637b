"""`ssmd feed`: the feeds of the registry."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ssmd.cli.completion import complete_feed
from ssmd.cli.help_text import examples
from ssmd.cli.invocation import checked_date, invocation_of
from ssmd.cli.output import print_json, print_table
from ssmd.cli.registry_output import (
    AsOfOption,
    DocumentFormat,
    DocumentOutput,
    DryRunOption,
    SetOption,
    assignments,
    change,
    known,
    print_document,
    print_yaml,
    shown,
)

if TYPE_CHECKING:
    from ssmd.registry.documents import FeedDocument, FeedVersion

app = typer.Typer(add_completion=False, rich_markup_mode=None, no_args_is_help=True, help="Create, change and show feeds.")

NameArgument = Annotated[str, typer.Argument(help="Feed.", autocompletion=complete_feed)]
FromOption = Annotated[
    str,
    typer.Option("--effective-from", metavar="DATE", help="First day of the version; default: today.", callback=checked_date),
]
ToOption = Annotated[
    str, typer.Option("--effective-to", metavar="DATE", help="Last day of the version; default: open.", callback=checked_date)
]
WireOption = Annotated[str, typer.Option("--wire", metavar="ERA", help="Form of the venue's frames, such as kalshi-dollars.")]
AuthOption = Annotated[str, typer.Option("--auth", metavar="METHOD", help="kalshi-signature or none.")]
EndpointOption = Annotated[
    list[str] | None, typer.Option("--endpoint", metavar="NAME=REST,WEBSOCKET", help="An endpoint; may be repeated.")
]
ChannelOption = Annotated[list[str] | None, typer.Option("--channel", metavar="NAME", help="A channel; may be repeated.")]
CapabilityOption = Annotated[
    list[str] | None, typer.Option("--capability", metavar="NAME", help="What the feed offers; may be repeated.")
]
RateOption = Annotated[
    list[str] | None,
    typer.Option("--rate-limit", metavar="NAME=NUMBER", help="For example rest_reads_per_second=20; may be repeated."),
]
ZoneOption = Annotated[str, typer.Option("--timezone", metavar="ZONE", help="Zone of the calendar, such as America/New_York.")]
PauseOption = Annotated[
    list[str] | None,
    typer.Option("--pause", metavar="'DAY HH:MM-HH:MM'", help="A weekly pause in the calendar's zone; may be repeated."),
]


def _pairs(given: list[str] | None, option: str) -> list[tuple[str, str]]:
    found = []
    for text in given or []:
        name, equals, value = text.partition("=")
        if not equals:
            raise typer.BadParameter(f"{text!r} has no =", param_hint=option)
        found.append((name, value))
    return found


def _pause(text: str) -> dict[str, str]:
    found = re.fullmatch(r"(\w+) +(\d\d:\d\d)-(\d\d:\d\d)(?: +(.+))?", text.strip())
    if found is None:
        raise typer.BadParameter(f"{text!r} is not 'DAY HH:MM-HH:MM REASON'", param_hint="--pause")
    pause = {"day": found[1].lower(), "start": found[2], "end": found[3]}
    return {**pause, "reason": found[4]} if found[4] else pause


def _version(
    *,
    effective_from: str,
    effective_to: str,
    wire: str,
    auth: str,
    endpoints: list[str] | None,
    channels: list[str] | None,
    capabilities: list[str] | None,
    rates: list[str] | None,
    zone: str,
    pauses: list[str] | None,
) -> dict[str, Any]:
    """What the options say of a version, as plain data; what they do not say is absent."""
    said: dict[str, Any] = {"effective_from": effective_from, "effective_to": effective_to, "wire": wire, "auth": auth}
    said |= {"channels": list(channels or ()), "capabilities": list(capabilities or ())}
    said["rate_limits"] = {name: int(value) if value.isdigit() else value for name, value in _pairs(rates, "--rate-limit")}
    calendar: dict[str, Any] = {"timezone": zone, "weekly_pauses": [_pause(text) for text in pauses or []]}
    said["calendar"] = {name: value for name, value in calendar.items() if value}
    said["endpoints"] = {
        name: dict(zip(("rest", "websocket"), [part.strip() for part in value.split(",")], strict=False))
        for name, value in _pairs(endpoints, "--endpoint")
    }
    return {name: value for name, value in said.items() if value}


@app.command(
    "create",
    epilog=examples(
        "ssmd feed create kalshi --type prediction-market --wire kalshi-dollars --auth kalshi-signature"
        " --endpoint prod=https://host/trade-api/v2,wss://host/trade-api/ws/v2 --timezone America/New_York"
        " --pause 'thursday 03:00-05:00 maintenance'"
    ),
)
def create(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="Name of the new feed.")],
    feed_type: Annotated[str, typer.Option("--type", metavar="TYPE", help="prediction-market or spot.")],
    wire: WireOption,
    endpoint: EndpointOption = None,
    status: Annotated[str, typer.Option("--status", metavar="STATUS", help="draft, active or deprecated.")] = "draft",
    display_name: Annotated[str, typer.Option("--display-name", metavar="TEXT", help="Name for people.")] = "",
    location: Annotated[
        list[str] | None,
        typer.Option("--location", metavar="NAME[:PROVIDER[:REGION]]", help="Where it is captured; may be repeated."),
    ] = None,
    effective_from: FromOption = "",
    effective_to: ToOption = "",
    auth: AuthOption = "",
    channel: ChannelOption = None,
    capability: CapabilityOption = None,
    rate_limit: RateOption = None,
    timezone: ZoneOption = "",
    pause: PauseOption = None,
    dry_run: DryRunOption = False,
) -> int:
    """Create a feed with its first version."""
    from ssmd.registry.edits import create_document  # noqa: PLC0415 - keeps --help quick

    invocation = invocation_of(ctx)
    version = _version(
        effective_from=effective_from or invocation.today,
        effective_to=effective_to,
        wire=wire,
        auth=auth,
        endpoints=endpoint,
        channels=channel,
        capabilities=capability,
        rates=rate_limit,
        zone=timezone,
        pauses=pause,
    )
    fields: dict[str, Any] = {"name": name}
    if display_name:
        fields["display_name"] = display_name
    fields |= {"type": feed_type, "status": status}
    if location:
        parts = [dict(zip(("name", "provider", "region"), text.split(":", 2), strict=False)) for text in location]
        fields["capture_locations"] = [{key: value for key, value in part.items() if value} for part in parts]
    fields["versions"] = [{**version, "endpoints": version.get("endpoints", {})}]
    return change(invocation, create_document("feed", name, fields), dry_run=dry_run)


@app.command("add-version", epilog=examples("ssmd feed add-version kalshi --effective-from 2027-01-01 --wire kalshi-dollars-2"))
def add_version(
    ctx: typer.Context,
    name: NameArgument,
    effective_from: Annotated[
        str, typer.Option("--effective-from", metavar="DATE", help="First day of the version.", callback=checked_date)
    ],
    effective_to: ToOption = "",
    wire: WireOption = "",
    auth: AuthOption = "",
    endpoint: EndpointOption = None,
    channel: ChannelOption = None,
    capability: CapabilityOption = None,
    rate_limit: RateOption = None,
    timezone: ZoneOption = "",
    pause: PauseOption = None,
    dry_run: DryRunOption = False,
) -> int:
    """Add a version to a feed: as the newest one, but for what is given. The newest one ends where it begins."""
    from ssmd.registry.edits import add_item  # noqa: PLC0415 - keeps --help quick
    from ssmd.registry.rendering import plain  # noqa: PLC0415

    invocation = invocation_of(ctx)
    said = _version(
        effective_from=effective_from,
        effective_to=effective_to,
        wire=wire,
        auth=auth,
        endpoints=endpoint,
        channels=channel,
        capabilities=capability,
        rates=rate_limit,
        zone=timezone,
        pauses=pause,
    )
    newest = plain(_feed(ctx, name).versions[-1])
    newest.pop("effective_to", None)
    merged = {**newest, **said}
    for section in ("calendar", "rate_limits"):
        if section in said:
            merged[section] = {**newest.get(section, {}), **said[section]}
    return change(invocation, add_item("feed", name, ("versions",), merged), dry_run=dry_run)


@app.command(
    "update",
    epilog=examples("ssmd feed update kalshi --status deprecated", "ssmd feed update kalshi --set versions[1].auth=none"),
)
def update(
    ctx: typer.Context,
    name: NameArgument,
    status: Annotated[str, typer.Option("--status", metavar="STATUS", help="draft, active or deprecated.")] = "",
    display_name: Annotated[str, typer.Option("--display-name", metavar="TEXT", help="Name for people.")] = "",
    set_: SetOption = None,
    dry_run: DryRunOption = False,
) -> int:
    """Change fields of a feed; comments, order and style of the file stay."""
    from ssmd.registry.documents import FeedDocument  # noqa: PLC0415 - keeps --help quick
    from ssmd.registry.edits import set_fields  # noqa: PLC0415

    given = [(("display_name",), display_name)] if display_name else []
    given += [(("status",), status)] if status else []
    edit = set_fields("feed", name, [*given, *assignments(set_ or [], FeedDocument)])
    return change(invocation_of(ctx), edit, dry_run=dry_run)


@app.command("list", epilog=examples("ssmd feed list", "ssmd feed list -o json"))
def list_feeds(ctx: typer.Context, output: DocumentOutput = DocumentFormat.TABLE) -> None:
    """List the feeds, with the version in force today."""
    from ssmd.registry.integrity import version_in_force  # noqa: PLC0415 - keeps --help quick
    from ssmd.registry.loader import load_registry  # noqa: PLC0415

    invocation = invocation_of(ctx)
    rows: list[dict[str, Any]] = []
    for name, feed in load_registry(invocation.workspace.registry, date=invocation.today).feeds.items():
        version = version_in_force(feed, invocation.today)
        rows.append(
            {
                "name": name,
                "type": feed.type,
                "status": feed.status,
                "versions": len(feed.versions),
                "effective_from": version.effective_from if version else "",
                "wire": version.wire if version else "",
                "endpoints": list(version.endpoints) if version else [],
            }
        )
    if output is DocumentFormat.JSON:
        print_json(rows)
    elif output is DocumentFormat.YAML:
        print_yaml(rows)
    else:
        print_table(
            invocation,
            ["name", "type", "status", ">versions", "in force from", "wire", "endpoints"],
            [[*list(row.values())[:-1], shown(tuple(row["endpoints"]))] for row in rows],
            empty="the registry holds no feed",
        )


@app.command("show", epilog=examples("ssmd feed show kalshi", "ssmd feed show kalshi --as-of 2025-01-01 -o yaml"))
def show(ctx: typer.Context, name: NameArgument, as_of: AsOfOption = "", output: DocumentOutput = DocumentFormat.TABLE) -> int:
    """Show a feed; with --as-of only the version in force on that day. Exit status 1: none was."""
    import msgspec  # noqa: PLC0415 - keeps --help quick

    from ssmd.cli.exit_status import NO, OK  # noqa: PLC0415
    from ssmd.cli.output import say  # noqa: PLC0415
    from ssmd.registry.integrity import version_in_force  # noqa: PLC0415

    invocation = invocation_of(ctx)
    feed = _feed(ctx, name)
    if as_of:
        version: FeedVersion | None = version_in_force(feed, as_of)
        if version is None:
            say(f'feed "{name}" has no version in force on {as_of}')
            return NO
        feed = msgspec.structs.replace(feed, versions=(version,))
    print_document(invocation, feed, output)
    return OK


def _feed(ctx: typer.Context, name: str) -> FeedDocument:
    """The feed `name` of the registry."""
    from ssmd.registry.loader import load_registry  # noqa: PLC0415 - keeps --help quick

    invocation = invocation_of(ctx)
    feeds = load_registry(invocation.workspace.registry, date=invocation.today).feeds
    return feeds[known("feed", name, feeds)]
