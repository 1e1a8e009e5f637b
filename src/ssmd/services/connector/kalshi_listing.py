"""Kalshi's listing and its hours, as the connector asks for them over REST."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Final, TypeVar
from urllib.parse import quote

import msgspec

from ssmd.clock import Clock
from ssmd.errors import Malformed, Misconfigured, Rejected, Unavailable
from ssmd.exchanges.kalshi.combos import is_combo
from ssmd.exchanges.kalshi.schedule import STANDING, Schedule, schedule_of
from ssmd.services.connector.universe import Listed
from ssmd.services.kalshi_rest.client import KalshiRest, RestSettings

PAGE_LIMIT: Final = 1000
TICKERS_AT_ONCE: Final = 100
"""Asked for by name in one call: they are part of its url."""
ALONE_MAX: Final = 100
"""Asked for by themselves in one round, a call each: the markets that come meanwhile wait for its end."""
SETTLED: Final = frozenset({"finalized", "settled"})
"""Statuses after which nothing comes any more: "finalized" is the venue's word, "settled" that of its filter."""
PATIENCE: Final = RestSettings(tries_max=6, deadline_s=30.0, pause_first_s=0.25, pause_max_s=5.0)
"""Whoever asks has a connection to look after; what is not had within this is asked again later."""
ONCE: Final = RestSettings(tries_max=1)
SCHEDULE_EVERY_NS: Final = 3_600_000_000_000
Answer = TypeVar("Answer")
MakeClient = Callable[[RestSettings], KalshiRest]


class _Market(msgspec.Struct):
    ticker: str
    event_ticker: str = ""
    status: str = ""


class _Single(msgspec.Struct):
    market: _Market


class _Series(msgspec.Struct):
    ticker: str


class _SeriesList(msgspec.Struct):
    series: list[_Series] | None = None


class KalshiListing:
    """`universe.Listing`. All its calls raise Misconfigured where the key is refused and `is_final` says that it stays so.

    Args:
        client: makes a client; it is closed after each question.
        is_final: whether a refused key counts as wrong by now, by what the venue said.
    """

    def __init__(self, client: MakeClient, is_final: Callable[[str], bool]) -> None:
        self._client = client
        self._is_final = is_final
        # The last one asked for by itself: the next round begins behind it.
        self._alone = ""

    async def open_markets(self, *, series: str = "", event: str = "", limit: int = 0) -> Sequence[Listed]:
        """Open markets, in the venue's order, each once; no further page once there are `limit` (0 = all).

        Combos only where their series or event is named: there are too many of them to take them for wanted.

        Raises:
            Unavailable: the listing cannot be had now.
        """
        params = {"status": "open", "limit": str(PAGE_LIMIT)}
        params |= {"series_ticker": series} if series else {}
        params |= {"event_ticker": event} if event else {}
        if not is_combo(series or event):
            params["mve_filter"] = "exclude"
        return [Listed(one.ticker, one.event_ticker) for one in await self._markets(params, limit)]

    async def _markets(self, params: dict[str, str], limit: int = 0) -> list[_Market]:
        found: list[_Market] = []
        try:
            async with self._client(PATIENCE) as client:
                async for rows in client.pages("/markets", params, rows="markets", key="ticker"):
                    # Long listings must not hold up the frames that come meanwhile.
                    await asyncio.sleep(0)
                    found += [_decoded(bytes(row), _Market, "/markets") for row in rows]
                    if 0 < limit <= len(found):
                        break
        except Rejected as error:
            raise self._refused(error) from error
        return found

    async def series_of(self, category: str) -> Sequence[str]:
        """The series of a category, sorted. Raises as `open_markets`."""
        answer = _decoded(await self._ask("/series", {"category": category}, PATIENCE), _SeriesList, "/series")
        return sorted({one.ticker for one in answer.series or ()})

    async def settled(self, tickers: Sequence[str]) -> Sequence[str]:
        """Those of `tickers` that are known to have settled, or that the venue does not know (settled long ago).

        A list that lacks a market proves nothing, only "not found" for its very own path does. `ALONE_MAX` are asked for
        so, and none behind one that cannot be told now: whoever is left has its turn in the next rounds.

        Raises:
            as `open_markets`.
        """
        status: dict[str, str] = {}
        for at in range(0, len(tickers), TICKERS_AT_ONCE):
            some = tickers[at : at + TICKERS_AT_ONCE]
            known = await self._markets({"tickers": ",".join(some), "limit": str(PAGE_LIMIT)})
            status |= {one.ticker: one.status for one in known}
        missing = sorted(set(tickers) - status.keys(), key=lambda ticker: (ticker <= self._alone, ticker))
        with suppress(Unavailable):
            for ticker in missing[:ALONE_MAX]:
                self._alone = ticker
                status[ticker] = await self._status_of(ticker)
        return [ticker for ticker in tickers if status.get(ticker) in SETTLED]

    async def _status_of(self, ticker: str) -> str:
        """The status of a market asked for by itself; "settled" where the venue says that there is none."""
        path = f"/markets/{quote(ticker, safe='')}"
        try:
            async with self._client(PATIENCE) as client:
                answer = await client.get(path)
        except Rejected as error:
            if error.rule == "kalshi-not-found":
                return "settled"
            raise self._refused(error) from error
        return _decoded(answer.body, _Single, path).market.status

    async def schedule(self) -> bytes:
        """The body of `/exchange/schedule`; asked once. Raises as `open_markets`."""
        return await self._ask("/exchange/schedule", {}, ONCE)

    async def _ask(self, path: str, params: dict[str, str], settings: RestSettings) -> bytes:
        try:
            async with self._client(settings) as client:
                return (await client.get(path, params)).body
        except Rejected as error:
            raise self._refused(error) from error

    def _refused(self, error: Rejected) -> Misconfigured | Unavailable:
        if error.rule == "kalshi-bad-key" and self._is_final(error.message):
            return Misconfigured(error.message, mend="check the key id and the private key of this environment")
        return Unavailable(error.message, mend=error.mend)


def _decoded(body: bytes, form: type[Answer], path: str) -> Answer:
    try:
        return msgspec.json.decode(body, type=form)
    except msgspec.DecodeError as error:
        raise Unavailable(f"{path} answered what is not expected: {error}") from error


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
        except (Unavailable, Malformed, Misconfigured):
            return  # a wrong key is for the handshake to tell
        self._read_ns = now_ns

    def text_at(self, ts_ns: int) -> str:
        """The planned silence that `ts_ns` lies in, "" = none."""
        pause = self._schedule.pause_at(ts_ns)
        if pause is None:
            return ""
        end = datetime.fromtimestamp(pause.end_ns // 1_000_000_000, tz=UTC)
        return f"{pause.reason} of the venue until {end:%Y-%m-%d %H:%M} UTC"
