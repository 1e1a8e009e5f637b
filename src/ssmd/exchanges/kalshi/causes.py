"""The holes a mapper opens, one function a cause; `domain.capture.GapOpened` has their fields."""

from __future__ import annotations

from ssmd.exchanges.kalshi.book_check import Broken
from ssmd.exchanges.kalshi.frames import Error
from ssmd.exchanges.kalshi.holes import Hole
from ssmd.exchanges.kalshi.output import Output
from ssmd.exchanges.kalshi.subscriptions import Sub


def sequence_jump(out: Output, sub: Sub, missing: int) -> Hole:
    """`missing` frames of the subscription are missing before this one: whose, is not known."""
    expected = out.seq - missing
    evidence = f"sid {sub.sid}: seq {out.seq} came where {expected} was due; {missing} missing"
    hole = _hole(out, sub, "sequence-jump", str(sub.sid), evidence, sub.last_good_ns)
    hole.seq_expected, hole.seq_found = expected, out.seq
    return hole


def unmapped_frame(out: Output, sub: Sub, good_ns: int) -> Hole:
    """This frame is on the tape and not among the records."""
    evidence = f"entry {out.n} (sid {sub.sid}, seq {out.seq}) is on the tape and was not understood"
    hole = _hole(out, sub, "unmapped-frame", f"{sub.sid}-unmapped", evidence, good_ns)
    hole.seq_expected = hole.seq_found = out.seq
    return hole


def channel_error(out: Output, sub: Sub, frame: Error) -> Hole:
    """The venue ended the subscription."""
    evidence = f"the venue ended sid {sub.sid} ({sub.channel}): error {frame.msg.code} {frame.msg.msg}"[:200]
    return _hole(out, sub, "channel-error", f"{sub.sid}-ended", evidence, out.ts_ns)


def book_inconsistent(out: Output, sub: Sub, broken: Broken) -> Hole:
    """No frame is missing, and yet the book cannot be: nothing since its last snapshot is proven."""
    return _hole(out, sub, "book-inconsistent", f"{sub.sid}-book", broken.reason, broken.since_ns)


def _hole(out: Output, sub: Sub, cause: str, suffix: str, evidence: str, good_ns: int) -> Hole:
    # Nothing good was seen of a sid whose beginning was not: its hole has no earlier start that could be proven.
    gap_id = f"{out.session}-{out.n}-{suffix}"
    return Hole(gap_id, cause, good_ns or out.ts_ns, evidence, channel=sub.channel, sid=sub.sid)
