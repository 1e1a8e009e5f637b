"""The recorder under the SQLite journal: the `eventsourcing` library's own, with what a journal promises beyond it.

A row is an event: originator_id = the subject behind "{env}.journal." ("trading-day.2026-05-14"), originator_version =
the aggregate's version, topic = the event's type, state = the envelope's bytes, rowid = the position. A row whose version
is NULL is a message that is no event. Any tool of the library reads the events of such a file.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from eventsourcing.persistence import IntegrityError, StoredEvent
from eventsourcing.sqlite import SQLiteApplicationRecorder, SQLiteCursor

SELECT: Final = "SELECT rowid, originator_id, state FROM stored_events"


class Row(NamedTuple):
    """One stored message."""

    position: int
    tail: str
    state: bytes


class CommandSeenError(IntegrityError):
    """The command id has written something already."""


class JournalRecorder(SQLiteApplicationRecorder):
    """Used by one thread at a time; other processes may use the same file."""

    def construct_create_table_statements(self) -> list[str]:
        commands = "CREATE TABLE IF NOT EXISTS commands (command_id TEXT PRIMARY KEY) WITHOUT ROWID"
        return [*super().construct_create_table_statements(), commands]

    def _insert_events(self, c: SQLiteCursor, stored_events: Sequence[StoredEvent], **kwargs: Any) -> Sequence[int] | None:
        """Insert, in the transaction of `c`, if each aggregate has its expected version.

        Args:
            expected: version by originator id; behind it the new ones follow.
            command_id: "" = none.

        Raises:
            CommandSeenError: the command id has written other events.
            IntegrityError: an aggregate is elsewhere.
        """
        command_id: str = kwargs.get("command_id", "")
        if command_id:
            # A write comes first: a transaction that begins with reading may find that it cannot write any more.
            c.execute("INSERT OR IGNORE INTO commands VALUES (?) RETURNING 1", (command_id,))
            if c.fetchone() is None:
                raise CommandSeenError(command_id)
        positions = super()._insert_events(c, stored_events, **kwargs)
        expected: dict[str, int] = kwargs.get("expected", {})
        for originator_id, version in expected.items():
            if version:
                wanted = (originator_id, version)
                c.execute("SELECT 1 FROM stored_events WHERE originator_id=? AND originator_version=?", wanted)
                if c.fetchone() is None:
                    raise IntegrityError(f"{originator_id} has no version {version}")
        return positions

    def insert_rows(self, after: int, rows: Sequence[tuple[str, int | None, str, bytes]]) -> int:
        """Insert messages as they stood behind position `after`: (tail, version, topic, state) each; the last position.

        Raises:
            IntegrityError: the journal does not end at `after`, or holds such a version.
        """
        with self.datastore.transaction(commit=True) as c:
            for number, row in enumerate(rows, after + 1):
                c.execute(self.insert_events_statement, row)
                if c.lastrowid != number:
                    raise IntegrityError(f"the journal ends at {c.lastrowid - 1}, expected {number - 1}")
        return after + len(rows)

    def last_position(self) -> int:
        """0 = empty."""
        return self.max_notification_id() or 0

    def last_version(self, tail: str) -> int:
        """Version of the aggregate's last event, 0 = none."""
        with self.datastore.transaction(commit=False) as c:
            c.execute("SELECT MAX(originator_version) FROM stored_events WHERE originator_id=?", (tail,))
            return int(c.fetchone()[0] or 0)

    def rows_of(self, tail: str, after_version: int) -> list[Row]:
        """The events of one aggregate with a version above, by version."""
        condition = " WHERE originator_id=? AND originator_version>? ORDER BY originator_version"
        return self._select(SELECT + condition, (tail, after_version))

    def rows_between(self, after: int, until: int, limit: int) -> list[Row]:
        """The messages at positions in (after, until], the first `limit` of them."""
        return self._select(f"{SELECT} WHERE rowid>? AND rowid<=? ORDER BY rowid LIMIT ?", (after, until, limit))

    def _select(self, statement: str, params: tuple[object, ...]) -> list[Row]:
        with self.datastore.transaction(commit=False) as c:
            c.execute(statement, params)
            return [Row(*row) for row in c.fetchall()]
