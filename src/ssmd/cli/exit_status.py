"""How a command ends, and how an error is told: the one table of exit statuses.

    0    done; the answer is yes, or there is one
    1    the answer is no: a rule refused (Rejected), another writer won (Conflict), a check found something
    2    no answer: wrong usage, a wrong setting or document, bytes that do not fit, a server that does not answer
    130  interrupted (Ctrl-C)

Errors go to stderr as `error: what was found`, and `  try: what mends it` below.
"""

from __future__ import annotations

import os
import sys
import traceback
from typing import Final

from ssmd.errors import Conflict, Malformed, Misconfigured, Rejected, SsmdError, Unavailable

OK: Final = 0
NO: Final = 1
TROUBLE: Final = 2
INTERRUPTED: Final = 130

_STATUS_OF: Final[tuple[tuple[type[BaseException], int], ...]] = (
    (Rejected, NO),
    (Conflict, NO),
    (Malformed, TROUBLE),
    (Unavailable, TROUBLE),
    (Misconfigured, TROUBLE),
    (KeyboardInterrupt, INTERRUPTED),
)


def status_of(error: BaseException) -> int:
    """The exit status that `error` means; for one that nobody foresaw as well."""
    return next((status for kind, status in _STATUS_OF if isinstance(error, kind)), TROUBLE)


def tell(error: BaseException, *, debug: bool) -> int:
    """Write `error` on stderr for people; its exit status.

    Args:
        debug: with the traceback.
    """
    if debug and not isinstance(error, KeyboardInterrupt):
        traceback.print_exception(error, file=sys.stderr)
    message, mend = _words(error)
    if message:
        write_error(message, mend)
    return status_of(error)


def write_error(message: str, mend: str = "") -> None:
    """The form of every error on stderr."""
    sys.stderr.write(f"error: {harmless(message)}\n")
    if mend:
        sys.stderr.write(f"  try: {harmless(mend)}\n")
    sys.stderr.flush()


def harmless(text: str) -> str:
    """`text` for a terminal: what a venue or another process sent must not drive it. Line ends stay."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or char == "\n" else "\N{REPLACEMENT CHARACTER}" for char in text)


def _words(error: BaseException) -> tuple[str, str]:
    """(what, mend)"""
    match error:
        case KeyboardInterrupt():
            return "", ""
        case SsmdError():
            return error.message, error.mend
        case BaseExceptionGroup():
            return _words(error.exceptions[0])
        case OSError(filename=str() as name):
            return f"{name}: {os.strerror(error.errno) if error.errno else error}", ""
        case _:
            return f"unforeseen: {type(error).__name__}: {error}", "the same command with --debug, and report what it shows"
