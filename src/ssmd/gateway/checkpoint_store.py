"""Checkpoints in a SQLite file: one row a market, one for the head, each round in one transaction.

A kill at any instant leaves the round before. A damaged file is put aside and told of: the stream has everything.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import msgspec

from ssmd.errors import Misconfigured
from ssmd.gateway.checkpoint import Head, decode_head, decode_market, encode_head
from ssmd.gateway.market import Market
from ssmd.telemetry.structured import structlog

_TABLES = """
CREATE TABLE IF NOT EXISTS head (one INTEGER PRIMARY KEY CHECK (one = 1), body BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS markets (ticker TEXT PRIMARY KEY, body BLOB NOT NULL) WITHOUT ROWID;
"""


class Loaded(NamedTuple):
    head: Head
    markets: list[Market]


class CheckpointStore:
    """One gateway's checkpoint at `path`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._log = structlog.get_logger("ssmd.gateway")

    async def load(self, trades_max: int) -> Loaded | None:
        """What was saved last; None = nothing that can be used.

        Raises:
            Misconfigured: the directory cannot be written.
        """
        return await asyncio.to_thread(self._load, trades_max)

    async def save(self, head: Head, changed: dict[str, bytes], gone: Iterable[str], *, is_first: bool) -> None:
        """Save a round.

        Args:
            changed: ticker -> `checkpoint.encode_market`.
            gone: tickers that are not kept any more.
            is_first: what the file held before is of another stream, or unknown: it goes.
        """
        await asyncio.to_thread(self._save, head, changed, list(gone), is_first)

    def _load(self, trades_max: int) -> Loaded | None:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with closing(self._open()) as connection:
                row = connection.execute("SELECT body FROM head").fetchone()
                head = None if row is None else decode_head(row[0])
                if head is None:
                    return None
                bodies = connection.execute("SELECT body FROM markets")
                return Loaded(head, [decode_market(body, trades_max) for (body,) in bodies])
        except (sqlite3.DatabaseError, msgspec.DecodeError) as error:
            self._log.warning("the gateway's checkpoint is damaged: the stream is read from its start", error=str(error))
            for path in (self._path, *(self._path.with_name(self._path.name + suffix) for suffix in ("-wal", "-shm"))):
                path.unlink(missing_ok=True)
            return None
        except OSError as error:
            message = f"{self._path.parent} cannot be written: {error.strerror or error}"
            raise Misconfigured(message, mend="choose a writable workspace") from error

    def _save(self, head: Head, changed: dict[str, bytes], gone: list[str], is_first: bool) -> None:
        with closing(self._open()) as connection, connection:
            if is_first:
                connection.execute("DELETE FROM markets")
            connection.executemany("DELETE FROM markets WHERE ticker = ?", [(ticker,) for ticker in gone])
            connection.executemany("INSERT OR REPLACE INTO markets VALUES (?, ?)", changed.items())
            connection.execute("INSERT OR REPLACE INTO head VALUES (1, ?)", (encode_head(head),))

    def _open(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, timeout=5.0)
        # A power failure may lose the last rounds: what an older one holds is as good.
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.executescript(_TABLES)
        return connection
