"""The archivers' part of `ssmd.crash_points`: the steps of a seal, in order."""

from __future__ import annotations

from ssmd.crash_points import (
    AFTER_SEAL,
    AFTER_SPOOL_WRITE,
    AFTER_UPLOAD_BEFORE_SEAL,
    ARCHIVER,
    BEFORE_UPLOAD,
    CrashPoint,
    no_crash,
)

ALL = ARCHIVER

__all__ = ["AFTER_SEAL", "AFTER_SPOOL_WRITE", "AFTER_UPLOAD_BEFORE_SEAL", "ALL", "BEFORE_UPLOAD", "CrashPoint", "no_crash"]
