"""What the shell completes beyond options and commands. Never fails, never prints: an unreadable registry completes nothing."""

from __future__ import annotations

from pathlib import Path

import typer

from ssmd.settings import find_workspace, variables


def complete_environment(ctx: typer.Context, incomplete: str) -> list[str]:
    """Environments whose names begin with `incomplete`."""
    given = ctx.find_root().params.get("workspace") or variables().get("SSMD_WORKSPACE", "")
    try:
        directory = find_workspace(Path.cwd(), str(given)).registry / "environments"
        return sorted(path.stem for path in directory.glob(f"{incomplete}*.yaml"))
    except (OSError, ValueError):
        return []


def complete_feed(ctx: typer.Context, incomplete: str) -> list[str]:
    """Feeds whose names begin with `incomplete`."""
    given = ctx.find_root().params.get("workspace") or variables().get("SSMD_WORKSPACE", "")
    try:
        directory = find_workspace(Path.cwd(), str(given)).registry / "feeds"
        return sorted(path.stem for path in directory.glob(f"{incomplete}*.yaml"))
    except (OSError, ValueError):
        return []
