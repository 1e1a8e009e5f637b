"""Where an archiver may be killed on purpose: the steps of a seal, in order. A hook is called with the step's name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

AFTER_SPOOL_WRITE: Final = "archive-after-spool-write"
"""Part of a segment is in the spool file."""

BEFORE_UPLOAD: Final = "archive-before-upload"
"""The segment is whole in the spool; for a cut that content did not ask for, it is planned."""

AFTER_UPLOAD_BEFORE_SEAL: Final = "archive-after-upload-before-seal"
"""All files of the segment are in storage, the journal does not know of them."""

AFTER_SEAL: Final = "archive-after-seal"
"""The seal is in the journal."""

ALL: Final = (AFTER_SPOOL_WRITE, BEFORE_UPLOAD, AFTER_UPLOAD_BEFORE_SEAL, AFTER_SEAL)

CrashPoint = Callable[[str], None]


def no_crash(_name: str, /) -> None:
    """The hook of a process nobody wants to kill."""
