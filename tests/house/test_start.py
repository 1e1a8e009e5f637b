"""What a start loads: no process waits for libraries it does not use."""

import json
import subprocess
import sys

HEAVY = ("aiohttp", "botocore", "cryptography.hazmat", "hvac", "httpx", "nats", "opentelemetry", "prometheus_client", "pyarrow",
         "pydantic", "redis", "rich", "starlette", "structlog", "temporalio", "typer", "uvicorn", "yaml")  # fmt: skip
"""Libraries of which each takes tens of milliseconds, or hundreds, to load."""

LOOK = f"""
import json, sys
from importlib import import_module
heavy, seen = {HEAVY!r}, {{}}
for name, modules in json.loads(sys.argv[1]):
    for module in modules:
        import_module(module)
    seen[name] = [one for one in heavy if one in sys.modules]
print(json.dumps(seen))
"""


def loaded(*steps: tuple[str, list[str]]) -> dict[str, list[str]]:
    """Which of HEAVY are there after each step (name, modules to import) in one new process."""
    asked = subprocess.run(
        [sys.executable, "-P", "-c", LOOK, json.dumps(steps)], check=True, capture_output=True, text=True, timeout=100
    )
    answer: dict[str, list[str]] = json.loads(asked.stdout)
    return answer


def test_commands_and_components_load_what_they_use() -> None:
    """Each list is what is there after the step and those before it; `ssmd.wiring.components` names the components' modules."""
    assert loaded(
        ("ssmd data --help", ["ssmd.cli.app", "ssmd.cli.data"]),
        ("ssmd data book", ["ssmd.transforms.book_at", "ssmd.wiring.archive_access"]),
        ("ssmd data gaps", ["ssmd.projections.queries", "ssmd.wiring.views"]),
    ) == {
        "ssmd data --help": ["typer"],
        "ssmd data book": ["typer", "yaml"],
        "ssmd data gaps": ["typer", "yaml"],
    }
    process = ["nats", "prometheus_client", "structlog", "yaml"]
    archiver = ["ssmd.services.raw_archiver", "ssmd.streams.journal_nats", "ssmd.streams.transport_nats"]
    projector = ["ssmd.services.projector", "ssmd.services.standing", "ssmd.projections.store_redis"]
    assert loaded(
        ("any component", ["ssmd.wiring.process"]),
        ("archiver", archiver),
        ("projector", projector),
        ("connector", ["ssmd.services.connector.kalshi_venue", "ssmd.services.connector.service", "ssmd.wiring.venue_key"]),
        ("S3, where it is used", ["aiohttp"]),
    ) == {
        "any component": process,
        "archiver": process,
        "projector": sorted([*process, "redis"]),
        "connector": sorted([*process, "redis", "cryptography.hazmat", "httpx"]),
        "S3, where it is used": sorted([*process, "redis", "cryptography.hazmat", "httpx", "aiohttp"]),
    }
    assert loaded(("gateway", ["ssmd.wiring.process", "ssmd.gateway.app"])) == {
        "gateway": sorted([*process, "starlette", "uvicorn"])
    }
