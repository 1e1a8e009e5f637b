"""A client of Kalshi's REST interface for reading: one account, one token bucket, every wait bounded.

Theory of operation. Each call takes tokens first, so that the venue hardly ever has to refuse. What comes back is sorted
by `exchanges.kalshi.rest.verdict`; what may get better is tried again with a growing, jittered pause, until `tries_max`
tries or `deadline_s` are used up. A walk over pages gives each row once and survives cursors that lead back.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any, Final, NamedTuple, Self
from urllib.parse import urlsplit

import msgspec

from ssmd.clock import Clock
from ssmd.errors import Malformed, Rejected, Unavailable
from ssmd.exchanges.kalshi.rest import BASIC, SECOND_NS, Limits, TokenBucket, Verdict, age_s, limits_of, verdict
from ssmd.exchanges.kalshi.rest_pages import PageWalk
from ssmd.identifiers import RandomBytes
from ssmd.services.http_client import authorities, httpx
from ssmd.streams.backoff import backoff_s

Signer = Callable[[str, str], Mapping[str, str]]
"""Headers for (method, path from the root), made afresh for each try; {} where nothing is signed."""

CIRCLES_MAX: Final = 16
PAGES_MAX: Final = 20_000
SIGN_AGAIN_MAX: Final = 3
_LIMITS_EVERY_NS: Final = 300 * SECOND_NS


class RestSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How patient the client is.

    Attributes:
        timeout_s: of one try.
        tries_max: tries of one call, the first included.
        deadline_s: of one call with all its tries and waits.
        pause_first_s, pause_max_s: before the second try, and the longest.
    """

    timeout_s: float = 10.0
    tries_max: int = 12
    deadline_s: float = 120.0
    pause_first_s: float = 0.2
    pause_max_s: float = 15.0


class RestAnswer(NamedTuple):
    """A body, and the time the venue's state in it is at least of (our clock's ns)."""

    body: bytes
    as_of_ns: int


class RestFigures(msgspec.Struct):
    """What was asked so far: tries, answers read, and why others were not."""

    tries: int = 0
    answers: int = 0
    slow_downs: int = 0
    troubles: int = 0
    stale: int = 0
    circles: int = 0


class RestAccount:
    """What an account may ask: its limits, and the tokens left. For all clients of it in this process, one after another too.

    Attributes:
        limits: as last told.
        limits_due_ns: when to ask for them again (monotonic).
    """

    def __init__(self, clock: Clock) -> None:
        self.limits = BASIC
        self.limits_due_ns = 0
        self._clock = clock
        self._bucket = TokenBucket(self.limits, clock.monotonic_ns())

    def use(self, limits: Limits) -> None:
        """Go on with these."""
        self.limits = limits
        self._bucket.change(limits, self._clock.monotonic_ns())

    def take(self) -> int:
        """Take the tokens of a call; nanoseconds to wait before it."""
        return self._bucket.take(self._clock.monotonic_ns())

    def refused(self) -> None:
        """The venue said 429."""
        self._bucket.refused(self._clock.monotonic_ns())


class KalshiRest:
    """See the module. `close` it, or use it as a context.

    Args:
        rest_url: with the root path, without a slash at its end.
        signer: None signs nothing: then the venue's limits cannot be asked, and the lowest tier's are kept.
        account: whose tokens are taken; None = this client's own.
    """

    def __init__(
        self,
        rest_url: str,
        signer: Signer | None,
        clock: Clock,
        random: RandomBytes,
        settings: RestSettings = RestSettings(),  # noqa: B008 - immutable
        account: RestAccount | None = None,
    ) -> None:
        self.url = rest_url.rstrip("/")
        self.figures = RestFigures()
        self._account = account or RestAccount(clock)
        self._signer = signer
        self._clock = clock
        self._random = random
        self._settings = settings
        self._root = urlsplit(self.url).path
        self._http = httpx.AsyncClient(timeout=settings.timeout_s, verify=authorities())

    @property
    def limits(self) -> Limits:
        """The account's, as last told."""
        return self._account.limits

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Let go of the connections."""
        await self._http.aclose()

    async def get(self, path: str, params: Mapping[str, str] | None = None, *, not_before_ns: int = 0) -> RestAnswer:
        """The answer to GET `path` (below the root, "/markets").

        Args:
            not_before_ns: an answer that an edge may have kept since before this is asked again.

        Raises:
            Unavailable: no answer within the limits of the settings.
            Rejected: "kalshi-bad-request", "kalshi-not-found", "kalshi-bad-key": the same call will be refused again.
        """
        await self._learn_limits()
        return await self._patiently(path, params or {}, not_before_ns)

    async def pages(
        self, path: str, params: Mapping[str, str], *, rows: str, key: str, not_before_ns: int = 0
    ) -> AsyncGenerator[list[msgspec.Raw]]:
        """The rows of every page, verbatim, each row (told apart by `key`) once; empty pages too.

        Raises:
            Unavailable: as `get`; also when the pages go in circles and go on doing so.
            Rejected: as `get`.
        """
        walk = PageWalk(rows, key)
        for _ in range(PAGES_MAX):
            asked = {**params, **({"cursor": walk.cursor} if walk.cursor else {})}
            answer = await self.get(path, asked, not_before_ns=not_before_ns)
            try:
                step, fresh = walk.take(answer.body)
            except Malformed as error:
                raise Unavailable(f"{self.url}{path} answered {error.message}") from error
            yield fresh
            if step == "done":
                return
            if step != "next":
                self.figures.circles += 1
                if walk.circles > CIRCLES_MAX:
                    raise Unavailable(f"the pages of {path} go in circles: {walk.circles} times to cursor {walk.cursor[:40]!r}")
                await asyncio.sleep(self._pause_s(walk.circles))
        raise Unavailable(f"{path} has more than {PAGES_MAX} pages")

    # Inside.

    async def _learn_limits(self) -> None:
        now_ns, account = self._clock.monotonic_ns(), self._account
        if self._signer is None or now_ns < account.limits_due_ns:
            return
        account.limits_due_ns = now_ns + _LIMITS_EVERY_NS
        try:
            account.use(limits_of((await self._patiently("/account/limits", {}, 0)).body))
        except Unavailable:
            return  # what is known stays
        except Rejected as error:
            # A key without the scope for this call may have it for others; one that is wrong is so for all.
            if error.rule == "kalshi-bad-key" and " answered 403" not in error.message:
                raise

    async def _patiently(self, path: str, params: Mapping[str, str], not_before_ns: int) -> RestAnswer:
        settings = self._settings
        last = "no try was made"
        signed_again = tries = 0
        try:
            async with asyncio.timeout(settings.deadline_s):
                for attempt in range(1, settings.tries_max + 1):
                    tries = attempt
                    sent_ns = await self._turn()
                    found, answer = await self._once(path, params)
                    last = found.words
                    if found.advice == "read" and answer is not None:
                        as_of_ns = sent_ns - age_s(answer.headers) * SECOND_NS
                        if as_of_ns >= not_before_ns:
                            self.figures.answers += 1
                            return RestAnswer(answer.content, as_of_ns)
                        self.figures.stale += 1
                        last = f"an answer kept since {age_s(answer.headers)} s"
                    signed_again += found.advice == "sign-again"
                    self._refuse(path, found, is_final=signed_again > SIGN_AGAIN_MAX)
                    await asyncio.sleep(self._pause_s(attempt))
        except TimeoutError:
            raise Unavailable(f"{self.url}{path}: no answer after {settings.deadline_s:g} s, {tries} tries: {last}") from None
        raise Unavailable(f"{self.url}{path}: no answer after {tries} tries: {last}")

    async def _turn(self) -> int:
        """Wait for tokens; the wall clock's time then."""
        wait_ns = self._account.take()
        if wait_ns:
            await asyncio.sleep(wait_ns / SECOND_NS)
        return self._clock.now_ns()

    async def _once(self, path: str, params: Mapping[str, str]) -> tuple[Verdict, Any]:
        self.figures.tries += 1
        headers = {} if self._signer is None else dict(self._signer("GET", f"{self._root}{path}"))
        try:
            answer = await self._http.get(f"{self.url}{path}", params=dict(params), headers=headers)
        except (httpx.HTTPError, httpx.StreamError) as error:
            self.figures.troubles += 1
            return Verdict("try-again", f"{type(error).__name__}: {error}"), None
        found = verdict(answer.status_code, answer.content)
        if found.advice == "slow-down":
            self.figures.slow_downs += 1
            self._account.refused()
        elif found.advice != "read":
            self.figures.troubles += 1
        return found, answer

    def _refuse(self, path: str, found: Verdict, *, is_final: bool) -> None:
        what = f"{self.url}{path} answered {found.words}"
        match found.advice:
            case "bad-request":
                raise Rejected("kalshi-bad-request", what)
            case "not-found":
                raise Rejected("kalshi-not-found", what)
            case "bad-key":
                raise Rejected("kalshi-bad-key", what, mend="ssmd key verify")
            case "sign-again" if is_final:
                raise Rejected("kalshi-bad-key", what, mend="set this machine's clock (the venue allows some 10 s)")
            case _:
                return

    def _pause_s(self, attempt: int) -> float:
        return backoff_s(attempt, self._random, first_s=self._settings.pause_first_s, max_s=self._settings.pause_max_s)
