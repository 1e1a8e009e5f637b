"""Which values of keys should be replaced: that have expired or soon will, and that are older than their `rotation_days`."""

from __future__ import annotations

from typing import Final, NamedTuple

from ssmd.domain.key import Finding
from ssmd.keys.journaling import rotate_by_ns
from ssmd.keys.verification import DAY_NS
from ssmd.projections.access import KeyRow

NOTICE_NS: Final = 14 * DAY_NS
"""A key that expires within that time expires soon."""
_WORDS: Final[dict[Finding, str]] = {
    "expired": "has expired",
    "expires-soon": "expires soon",
    "rotation-due": "is older than its rotation_days",
}


class Found(NamedTuple):
    """A value that should be replaced; `due_ns` as in `key.ExpiryNoticed`."""

    name: str
    finding: Finding
    fingerprint: str
    due_ns: int

    @property
    def words(self) -> str:
        """For people, with what mends it."""
        return f"key {self.name} {_WORDS[self.finding]}: ssmd key rotate {self.name}"


def findings(row: KeyRow, rotation_days: int, now_ns: int) -> list[Found]:
    """What is to be said of a key now, the worst first; [] = nothing.

    Args:
        rotation_days: as the registry has it, 0 = never, or it does not know the key.
    """
    if row.status != "set":
        return []
    found: list[Found] = []
    if row.expires_ns and row.expires_ns < now_ns + NOTICE_NS:
        finding: Finding = "expired" if row.expires_ns <= now_ns else "expires-soon"
        found.append(Found(row.name, finding, row.fingerprint, row.expires_ns))
    due_ns = rotate_by_ns(row.set_ns, rotation_days)
    if due_ns and due_ns <= now_ns:
        found.append(Found(row.name, "rotation-due", row.fingerprint, due_ns))
    return found
