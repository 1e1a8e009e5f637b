"""What is wrong with the registry: one finding per mistake, with its place and how to mend it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from ssmd.errors import Misconfigured


class Place(NamedTuple):
    """Where in a file: both count from 1, as editors do. (0, 0) = the file as a whole."""

    line: int = 0
    column: int = 0


class Finding(NamedTuple):
    """One mistake.

    Attributes:
        file: path from the workspace's root ("exchanges/feeds/kalshi.yaml").
        line, column: from 1; 0 = the file as a whole.
        rule: stable kebab-case name, for programs.
        message: what was found and what was expected.
        mend: what to write instead, or "".
    """

    file: str
    line: int
    column: int
    rule: str
    message: str
    mend: str = ""

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        tail = f" ({self.mend})" if self.mend else ""
        return f"{place}: {self.message}{tail} [{self.rule}]"


class InvalidRegistry(Misconfigured):
    """The registry breaks at least one rule; `findings` holds all of them, by file and line."""

    def __init__(self, findings: Sequence[Finding]) -> None:
        self.findings = tuple(findings)
        count = len(self.findings)
        head = f"the registry has {count} mistake{'' if count == 1 else 's'}:"
        super().__init__("\n".join([head, *(f"  {finding}" for finding in self.findings)]), mend="ssmd validate")


def nearest(word: str, candidates: Iterable[str]) -> str:
    """The candidate most like `word`, or ""."""
    import difflib  # noqa: PLC0415 - only a mistake needs it, and every command reads the registry

    close = difflib.get_close_matches(word, list(candidates), n=1, cutoff=0.6)
    return close[0] if close else ""


def did_you_mean(word: str, candidates: Iterable[str]) -> str:
    """A mend for a mistyped word, or ""."""
    close = nearest(word, candidates)
    return f'did you mean "{close}"?' if close else ""
