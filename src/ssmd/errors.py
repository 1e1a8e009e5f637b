"""Every error ssmd raises on purpose, sorted by what the caller should do.

    SsmdError
    |- Rejected        a rule of ours said no; nothing changed       -> tell the user; do not retry
    |- Conflict        the stream moved under the writer             -> load again, decide again, retry
    |- Malformed       bytes or a document do not fit their format   -> theirs, not ours; quarantine, report
    |  `- UnknownFrame a venue frame of a type this mapper lacks     -> keep it raw, report a finding
    |- Unavailable     a backend did not answer within its deadline  -> retry later, with a limit
    `- Misconfigured   a setting or document is wrong                -> raised at start only; mend it, start again

A driver's own exceptions are translated into these in the one module that imports the driver.
Exit statuses and HTTP statuses are tables at the edge (`cli.exit_status`, `gateway.problems`).
"""


class SsmdError(Exception):
    """Root of the tree.

    Args:
        message: what was found and what was expected, with identifiers.
        mend: the command or edit that puts it right, or "" where there is none.
    """

    def __init__(self, message: str, *, mend: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.mend = mend


class Rejected(SsmdError):
    """A decider refused a command; no event was written.

    Args:
        rule: stable kebab-case name of the rule, for programs ("day-already-complete").
        message: the rule applied to this case, for people.
    """

    def __init__(self, rule: str, message: str, *, mend: str = "") -> None:
        super().__init__(message, mend=mend)
        self.rule = rule


class Conflict(SsmdError):
    """Somebody else appended first; deciding again on the new state is safe."""


class Malformed(SsmdError):
    """Bytes that do not fit the format they claim to have."""


class UnknownFrame(Malformed):
    """A well-formed venue frame of a type (or in a place) this mapper does not know."""


class Unavailable(SsmdError):
    """A backend did not answer within its deadline; what was asked may or may not have happened."""


class Misconfigured(SsmdError):
    """A setting or a registry document is wrong; raised at start, never later."""
