"""Kalshi's listing and its hours, as the connector asks for them over REST."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final, TypeVar

import httpx
import msgspec

from ssmd.clock import Clock
from ssmd.errors import Malformed, Unavailable
from ssmd.exchanges.kalshi.schedule import STANDING, Schedule, schedule_of
from ssmd.identifiers import RandomBytes
from ssmd.services.connector.universe import Listed
from ssmd.streams.backoff import backoff_s

PAGE_LIMIT: Final = 1000
PAGES_MAX: Final = 1000
TIMEOUT_S: Final = 10.0
ATTEMPTS_MAX: Final = 6
SCHEDULE_EVERY_NS: Final = 3_600_000_000_000
Answer = TypeVar("Answer")
_RETRYABLE: Final = frozenset({429, 500, 502, 503, 504})


class _Market(msgspec.Struct):
    ticker: str
    event_ticker: str = ""


class _Page(msgspec.Struct):
    markets: list[_Market]
    cursor: str = ""


class _Series(msgspec.Struct):
    ticker: str


class _SeriesList(msgspec.Struct):
    series: list[_Series] | None = None


class KalshiListing:
    """`universe.Listing`.

    Args:
        sign: the headers of a GET of an url.
    """

    def __init__(self, rest_url: str, sign: Callable[[str], dict[str, str]], random: RandomBytes) -> None:
        self._rest_url = rest_url
        self._sign = sign
        self._random = random

    async def open_markets(self, *, series: str = "", event: str = "", limit: int = 0) -> Sequence[Listed]:
        """Open markets without combos, in the venue's order, each once; no further page once there are `limit` (0 = all).

        Raises:
            Unavailable: no answer after ATTEMPTS_MAX attempts, one that does not fit, or a cursor that goes in circles.
        """
        url = f"{self._rest_url}/markets"
        wanted = {"status": "open", "mve_filter": "exclude", "limit": str(PAGE_LIMIT)}
        wanted |= {"series_ticker": series} if series else {}
        wanted |= {"event_ticker": event} if event else {}
        found: dict[str, Listed] = {}
        cursor, seen = "", set[str]()
        async with httpx.AsyncClient(timeout=TIMEOUT_S) as client:
            for _ in range(PAGES_MAX):
                body = await self._ask(client, url, wanted | ({"cursor": cursor} if cursor else {}))
                page = _decoded(body, _Page, url)
                # Long listings must not hold up the frames that come meanwhile.
                await asyncio.sleep(0)
                found.update((one.ticker, Listed(one.ticker, one.event_ticker)) for one in page.markets)
                cursor = page.cursor
                if not cursor or 0 < limit <= len(found):
                    return tuple(found.values())
                if cursor in seen:
                    raise Unavailable(f"the listing at {url} goes in circles: cursor {cursor[:40]!r} came twice")
                seen.add(cursor)
        raise Unavailable(f"the listing at {url} has more than {PAGES_MAX} pages")

    async def series_of(self, category: str) -> Sequence[str]:
        """The series of a category, sorted. Raises as `open_markets`."""
        url = f"{self._rest_url}/series"
        async with httpx.AsyncClient(timeout=TIMEOUT_S) as client:
            answer = _decoded(await self._ask(client, url, {"category": category}), _SeriesList, url)
        return sorted({one.ticker for one in answer.series or ()})

    async def schedule(self) -> bytes:
        """The body of `/exchange/schedule`; asked once. Raises Unavailable."""
        async with httpx.AsyncClient(timeout=TIMEOUT_S) as client:
            return await self._ask(client, f"{self._rest_url}/exchange/schedule", {}, attempts=1)

    async def _ask(self, client: httpx.AsyncClient, url: str, params: Mapping[str, str], attempts: int = ATTEMPTS_MAX) -> bytes:
        attempt = 0
        while True:
            attempt += 1
            try:
                answer = await client.get(url, params=dict(params), headers=self._sign(url))
            except httpx.HTTPError as error:
                trouble = f"cannot reach {url}: {error or type(error).__name__}"
            else:
                if answer.status_code == httpx.codes.OK:
                    return answer.content
                trouble = f"{url} answered {answer.status_code}: {answer.text[:200]}"
                if answer.status_code not in _RETRYABLE:
                    raise Unavailable(trouble)
            if attempt >= attempts:
                raise Unavailable(trouble)
            await asyncio.sleep(backoff_s(attempt, self._random, first_s=0.25, max_s=5.0))


def _decoded(body: bytes, form: type[Answer], url: str) -> Answer:
    try:
        return msgspec.json.decode(body, type=form)
    except msgspec.DecodeError as error:
        raise Unavailable(f"{url} answered what is not expected: {error}") from error


class Pauses:
    """The venue's planned silences; read anew every hour, at most, and as they always were until then."""

    def __init__(self, listing: KalshiListing, clock: Clock) -> None:
        self._listing = listing
        self._clock = clock
        self._schedule: Schedule = STANDING
        self._read_ns = 0

    async def refresh(self) -> None:
        """Read the schedule if it is time; one that cannot be had or read changes nothing."""
        now_ns = self._clock.now_ns()
        if now_ns - self._read_ns < SCHEDULE_EVERY_NS:
            return
        try:
            self._schedule = schedule_of(await self._listing.schedule(), now_ns)
        except (Unavailable, Malformed):
            return
        self._read_ns = now_ns

    def text_at(self, ts_ns: int) -> str:
        """The planned silence that `ts_ns` lies in, "" = none."""
        pause = self._schedule.pause_at(ts_ns)
        if pause is None:
            return ""
        end = datetime.fromtimestamp(pause.end_ns // 1_000_000_000, tz=UTC)
        return f"{pause.reason} of the venue until {end:%Y-%m-%d %H:%M} UTC"
