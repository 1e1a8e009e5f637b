"""Where a process may be killed on purpose: every named point of every component, in the order they are passed.

A component calls its hook with a point's name when it gets there; the usual hook does nothing. `services.armed_crash`
makes a hook that kills the process, for `ssmd chaos run` and for tests: what a kill -9 at that very place would leave
behind must be mended by the next start.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

CrashPoint = Callable[[str], None]
"""Called with a point's name; returns, or the process is gone."""


def no_crash(_name: str, /) -> None:
    """The hook of a process nobody wants to kill."""


# Connector

SESSION_CLOSED: Final = "connector-session-closed"
"""At a start: the session of the killed process is closed on the tape, no connection has been made."""

AFTER_TAPE_WRITE: Final = "connector-after-tape-write"
"""A block is on the tape (write, not yet fsync), nobody has been told of it."""

AFTER_TAPE_SYNC: Final = "connector-after-tape-sync"
"""The tape has been fsynced."""

AFTER_RAW_PUBLISH: Final = "publisher-after-raw-publish"
"""A block was sent to the raw stream, its records were not."""

AFTER_RAW_ACK: Final = "publisher-after-raw-ack"
"""The raw stream has acknowledged blocks, the market stream perhaps not their records."""

AFTER_RECORDS_BEFORE_MARK: Final = "publisher-after-records-before-mark"
"""A block's records were sent, their mark was not."""

AFTER_MARK_BEFORE_ACK: Final = "publisher-after-mark-before-ack"
"""A block was sent whole, no acknowledgement has been looked at."""

AFTER_FACTS: Final = "connector-after-facts"
"""Facts are in the journal, this process has not taken note of it."""

# Archivers: the steps of a seal

AFTER_SPOOL_WRITE: Final = "archive-after-spool-write"
"""Part of a segment is in the spool file."""

BEFORE_UPLOAD: Final = "archive-before-upload"
"""The segment is whole in the spool; for a cut that content did not ask for, it is planned."""

AFTER_UPLOAD_BEFORE_SEAL: Final = "archive-after-upload-before-seal"
"""All files of the segment are in storage, the journal does not know of them."""

AFTER_SEAL: Final = "archive-after-seal"
"""The seal is in the journal."""

# Projector

AFTER_FOLD_BEFORE_COMMIT: Final = "projector-after-fold-before-commit"
"""Events are folded in memory, the view in the cache is still the old one."""

AFTER_COMMIT_BEFORE_MANIFEST: Final = "projector-after-commit-before-manifest"
"""The view has moved on, its manifests in storage have not."""

CONNECTOR: Final = (
    SESSION_CLOSED,
    AFTER_TAPE_WRITE,
    AFTER_TAPE_SYNC,
    AFTER_RAW_PUBLISH,
    AFTER_RAW_ACK,
    AFTER_RECORDS_BEFORE_MARK,
    AFTER_MARK_BEFORE_ACK,
    AFTER_FACTS,
)
ARCHIVER: Final = (AFTER_SPOOL_WRITE, BEFORE_UPLOAD, AFTER_UPLOAD_BEFORE_SEAL, AFTER_SEAL)
PROJECTOR: Final = (AFTER_FOLD_BEFORE_COMMIT, AFTER_COMMIT_BEFORE_MANIFEST)

OF_COMPONENT: Final[dict[str, tuple[str, ...]]] = {
    "connector": CONNECTOR,
    "raw-archiver": ARCHIVER,
    "normalized-archiver": ARCHIVER,
    "projector": PROJECTOR,
}
"""Component -> its points. Components that are not here keep nothing between two kills."""
