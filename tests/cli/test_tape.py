"""`ssmd tape` where there is no tape to look at."""

from pathlib import Path

from tests.cli.conftest import Ssmd


def test_a_tape_that_is_not_there_is_told_with_what_to_do_or_what_there_is(ssmd: Ssmd, workspace: Path) -> None:
    called = ssmd("--env", "kalshi-dev", "tape", "verify")
    assert (called.status, called.err) == (2, "error: kalshi-dev has no tape yet\n  try: ssmd up kalshi-dev\n")
    (workspace / ".ssmd" / "kalshi-dev" / "tape" / "other").mkdir(parents=True)
    called = ssmd("--env", "kalshi-dev", "tape", "verify")
    assert (called.status, called.err) == (2, "error: kalshi-dev has no tape of 'main'; there are tapes of other\n")
