import errno
from typing import Any

import pytest

from ssmd.cli.exit_status import status_of, tell
from ssmd.cli.invocation import Invocation
from ssmd.errors import Conflict, Malformed, Misconfigured, Rejected, SsmdError, Unavailable, UnknownFrame

Ssmd = Any


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (Rejected("day-already-complete", "no"), 1),
        (Conflict("moved"), 1),
        (Malformed("bytes"), 2),
        (UnknownFrame("frame"), 2),
        (Unavailable("away"), 2),
        (Misconfigured("wrong"), 2),
        (SsmdError("whatever"), 2),
        (ValueError("a mistake of ours"), 2),
        (KeyboardInterrupt(), 130),
    ],
)
def test_every_kind_of_error_has_its_status(error: BaseException, status: int) -> None:
    assert status_of(error) == status


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (Unavailable("no server at nats://a:1", mend="ssmd up dev"), "error: no server at nats://a:1\n  try: ssmd up dev\n"),
        (Rejected("r", "no"), "error: no\n"),
        # What the venue said must not drive the terminal. Mistakes in a registry have lines of their own.
        (
            Unavailable("the venue:\n\x1b]0;evil\x07\x9b2J é"),
            "error: the venue:\n\N{REPLACEMENT CHARACTER}]0;evil\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}2J é\n",
        ),
        (PermissionError(errno.EACCES, "Permission denied", "/x/y"), "error: /x/y: Permission denied\n"),
        (ExceptionGroup("tasks", [Unavailable("away")]), "error: away\n"),
        (KeyboardInterrupt(), ""),
        (
            KeyError("x"),
            "error: unforeseen: KeyError: 'x'\n  try: the same command with --debug, and report what it shows\n",
        ),
    ],
)
def test_an_error_is_told_without_a_traceback(error: BaseException, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    tell(error, debug=False)
    assert capsys.readouterr() == ("", text)


def test_debug_shows_the_traceback_too(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(Misconfigured) as caught:
        raise Misconfigured("wrong", mend="right")
    assert tell(caught.value, debug=True) == 2
    shown = capsys.readouterr().err
    assert shown.startswith("Traceback (most recent call last):")
    assert shown.endswith("error: wrong\n  try: right\n")


@pytest.mark.parametrize(
    ("raised", "status", "shown"),
    [(KeyboardInterrupt(), 130, ""), (Rejected("r", "no", mend="yes"), 1, "error: no\n  try: yes\n")],
)
def test_what_a_command_raises_becomes_the_status(
    ssmd: Ssmd, monkeypatch: pytest.MonkeyPatch, raised: BaseException, status: int, shown: str
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise raised

    monkeypatch.setattr(Invocation, "resolve", refuse)
    called = ssmd("env", "show")
    assert (called.status, called.err) == (status, shown)
