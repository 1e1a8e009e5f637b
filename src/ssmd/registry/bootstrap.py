"""A first registry: the documents a new workspace starts with, as text. The repository's own exchanges/ hold the same."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Final

from ssmd.errors import Misconfigured

KALSHI_FEED: Final = """\
name: kalshi
display_name: Kalshi
type: prediction-market
status: active
versions:
  # Integer cents and whole contracts; only archives of that time hold it.
  - effective_from: 2021-07-01
    effective_to: 2026-03-11
    wire: kalshi-cents
    auth: kalshi-signature
    endpoints:
      prod:
        rest: https://api.elections.kalshi.com/trade-api/v2
        websocket: wss://api.elections.kalshi.com/trade-api/ws/v2
  # Dollar strings and fixed-point contract counts.
  - effective_from: 2026-03-12
    wire: kalshi-dollars
    auth: kalshi-signature
    channels: [orderbook_delta, ticker, trade, market_lifecycle_v2]
    endpoints:
      prod:
        rest: https://external-api.kalshi.com/trade-api/v2
        websocket: wss://external-api-ws.kalshi.com/trade-api/ws/v2
      demo:
        rest: https://external-api.demo.kalshi.co/trade-api/v2
        websocket: wss://external-api-ws.demo.kalshi.co/trade-api/ws/v2
      simulator:
        rest: simulator
        websocket: simulator
"""

DEMO_ENVIRONMENT: Final = """\
# The whole system against the simulator, as `ssmd demo` runs it.
keys:
  kalshi:
    type: kalshi-api-key
    fields: [api_key, private_key]
    source: generated
name: demo
feed: kalshi
schema: market:1
capture:
  endpoint: simulator
  key: $key:kalshi
{capture}archive:
  segment_bytes: {segment_bytes}
gateway:
  port: 0
"""


def schema_document(sha256: str) -> str:
    """exchanges/schemas/market.yaml for the packaged definition, whose hash is `sha256`."""
    return f"""\
name: market
format: capnp
root: Record
versions:
  - version: 1
    status: active
    definition: market.capnp
    sha256: {sha256}
    effective_from: 2026-11-22
"""


def write_registry(root: Path, environments: dict[str, str], schema_sha256: str) -> None:
    """Write exchanges/ with the feed kalshi, the record schema and `environments` (name -> text) under `root`.

    Raises:
        Misconfigured: a file cannot be written.
    """
    definition = resources.files("ssmd.schemas").joinpath("market.capnp").read_text(encoding="utf-8")
    files = {
        "feeds/kalshi.yaml": KALSHI_FEED,
        "schemas/market.yaml": schema_document(schema_sha256),
        "schemas/market.capnp": definition,
        **{f"environments/{name}.yaml": text for name, text in environments.items()},
    }
    for name, text in files.items():
        path = root / "exchanges" / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        except OSError as error:
            raise Misconfigured(f"cannot write {path}: {error.strerror}", mend="choose a writable directory") from error
