"""How often somebody may ask: tokens that come back with time. Pure; the caller gives the monotonic time."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

_S_NS: Final = 1_000_000_000


class Bucket:
    """`per_s` tokens come back each second, up to `burst`."""

    __slots__ = ("_at_ns", "_full_ns", "_held_ns", "_per_s")

    def __init__(self, per_s: int, burst: int, now_ns: int) -> None:
        self._per_s = per_s
        self._full_ns = burst * _S_NS
        self._held_ns = self._full_ns
        self._at_ns = now_ns

    def take(self, now_ns: int) -> bool:
        """Take one token; False = there is none."""
        # Held in token-nanoseconds: exact, however short the time between two.
        self._held_ns = min(self._full_ns, self._held_ns + (now_ns - self._at_ns) * self._per_s)
        self._at_ns = now_ns
        if self._held_ns < _S_NS:
            return False
        self._held_ns -= _S_NS
        return True


class Buckets:
    """One bucket for each asker, of the `askers_max` who asked last."""

    def __init__(self, askers_max: int = 10_000) -> None:
        self._askers_max = askers_max
        self._buckets: OrderedDict[tuple[str, int], Bucket] = OrderedDict()

    def take(self, asker: str, per_s: int, now_ns: int) -> bool:
        """Whether `asker`, who may ask `per_s` times a second (twice that at once), may ask now."""
        key = (asker, per_s)
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = self._buckets[key] = Bucket(per_s, 2 * per_s, now_ns)
            if len(self._buckets) > self._askers_max:
                self._buckets.popitem(last=False)
        else:
            self._buckets.move_to_end(key)
        return bucket.take(now_ns)
