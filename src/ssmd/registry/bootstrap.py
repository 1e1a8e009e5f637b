"""A first registry: the documents a new workspace starts with, as text.

The repository's own exchanges/ are what `kalshi_files` gives.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Final

from ssmd.errors import Misconfigured
from ssmd.registry.editor_schemas import editor_schema_files
from ssmd.registry.integrity import packaged_sha256

KALSHI_FEED: Final = """\
# yaml-language-server: $schema=../.schemas/feed.json
name: kalshi
display_name: Kalshi
type: prediction-market
status: active
capture_locations:
  - name: local
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
    channels: [orderbook_delta, ticker, trade, market_lifecycle_v2, multivariate_market_lifecycle]
    capabilities: [trades, book, quotes, status, sequence-numbers, snapshots, listing]
    # Of a basic account: 200 read and 100 write tokens a second, and most requests cost 10.
    rate_limits:
      rest_reads_per_second: 20
      rest_writes_per_second: 10
      websocket_connections: 200
      websocket_subscriptions: 500000
      websocket_commands_per_second: 10000
    calendar:
      timezone: America/New_York
      weekly_pauses:
        - day: thursday
          start: "03:00"
          end: "05:00"
          reason: maintenance
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
  auth: dev
"""


def schema_document(sha256: str) -> str:
    """exchanges/schemas/market.yaml for the packaged definition, whose hash is `sha256`."""
    return f"""\
# yaml-language-server: $schema=../.schemas/schema.json
name: market
format: capnp
root: Record
kinds: [trade, book, snapshot, quote, status, gap]
versions:
  - version: 1
    status: active
    definition: market.capnp
    sha256: {sha256}
    effective_from: 2026-11-22
"""


KALSHI_DEV: Final = """\
# yaml-language-server: $schema=../.schemas/environment.json
# A whole system on one machine against the simulator: no account, no key, no network.
keys:
  kalshi:
    type: kalshi-api-key
    fields: [api_key, private_key]
    source: generated
name: kalshi-dev
feed: kalshi
schema: market:1
capture:
  endpoint: simulator
  key: $key:kalshi
  simulator:
    seed: 7
    markets: 20
gateway:
  port: 8900
  auth: dev
"""


def _kalshi_exchange(endpoint: str) -> str:
    """The environment that captures Kalshi's own exchange `endpoint`."""
    return f"""\
# yaml-language-server: $schema=../.schemas/environment.json
# Kalshi's {endpoint} exchange. Needs SSMD_KALSHI_API_KEY and SSMD_KALSHI_PRIVATE_KEY_FILE.
keys:
  kalshi:
    type: kalshi-api-key
    fields: [api_key, private_key]
name: kalshi-{endpoint}
feed: kalshi
schema: market:1
capture:
  endpoint: {endpoint}
  key: $key:kalshi
  tickers_max: 200
"""


def kalshi_files(environments: Mapping[str, str] | None = None, schema_sha256: str = "") -> dict[str, bytes]:
    """The files of a registry with the feed kalshi, by their path in exchanges/.

    Args:
        environments: name -> text; default: kalshi-dev, kalshi-demo, kalshi-prod.
        schema_sha256: of the packaged definition; default: found out.
    """
    if environments is None:
        environments = {
            "kalshi-dev": KALSHI_DEV,
            "kalshi-demo": _kalshi_exchange("demo"),
            "kalshi-prod": _kalshi_exchange("prod"),
        }
    return {
        "feeds/kalshi.yaml": KALSHI_FEED.encode(),
        "schemas/market.yaml": schema_document(schema_sha256 or packaged_sha256()).encode(),
        "schemas/market.capnp": resources.files("ssmd.schemas").joinpath("market.capnp").read_bytes(),
        **{f"environments/{name}.yaml": text.encode() for name, text in environments.items()},
    }


def write_registry(root: Path, environments: dict[str, str], schema_sha256: str) -> None:
    """Write exchanges/ with the feed kalshi, the record schema and `environments` (name -> text) under `root`.

    Raises:
        Misconfigured: a file cannot be written.
    """
    for name, payload in {**kalshi_files(environments, schema_sha256), **editor_schema_files()}.items():
        path = root / "exchanges" / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(payload)
        except OSError as error:
            raise Misconfigured(f"cannot write {path}: {error.strerror}", mend="choose a writable directory") from error
