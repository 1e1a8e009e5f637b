"""ssmd's errors as Temporal carries them, and back. Only Unavailable and Conflict may be tried again."""

from __future__ import annotations

from typing import Final

from temporalio.exceptions import ApplicationError

from ssmd.errors import Malformed, Misconfigured, Rejected, SsmdError

FINAL: Final = (Rejected, Malformed, Misconfigured)


def carried(error: SsmdError) -> ApplicationError:
    """`error` as an activity raises it."""
    rule = error.rule if isinstance(error, Rejected) else ""
    return ApplicationError(error.message, rule, error.mend, type=type(error).__name__, non_retryable=isinstance(error, FINAL))


def cause_of(error: BaseException | None) -> ApplicationError:
    """What went wrong, out of the wrappings of activity and child workflow."""
    wrapped = error
    while wrapped is not None and not isinstance(wrapped, ApplicationError):
        wrapped = wrapped.__cause__
    if wrapped is not None:
        return wrapped
    return ApplicationError(str(error) or type(error).__name__, "", "", type="Unavailable")


def rule_of(error: ApplicationError) -> tuple[str, str]:
    """(rule, mend) of a refusal, both "" otherwise."""
    if error.type != Rejected.__name__ or len(error.details) < 2:
        return "", ""
    return str(error.details[0]), str(error.details[1])
