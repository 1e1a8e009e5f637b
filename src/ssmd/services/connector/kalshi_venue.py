"""Kalshi as a `Venue`: signed handshakes, the subscription from settings or from the venue's own listing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Final
from urllib.parse import urlsplit

import httpx
import msgspec

from ssmd.clock import Clock
from ssmd.errors import Unavailable
from ssmd.exchanges.adapter import Subscription
from ssmd.exchanges.kalshi.normalize import KalshiMapper
from ssmd.exchanges.kalshi.session import KalshiSession
from ssmd.exchanges.kalshi.signing import PrivateKey, headers
from ssmd.services.connector.venue import Venue

PAGE_LIMIT: Final = 1000
PAGES_MAX: Final = 1000
REST_TIMEOUT_S: Final = 10.0
_EXPIRED: Final = b"header_timestamp_expired"


class _Market(msgspec.Struct):
    ticker: str


class _Page(msgspec.Struct):
    markets: list[_Market]
    cursor: Annotated[str, msgspec.Meta(max_length=10_000)] = ""


class KalshiAccess:
    """How one environment reaches Kalshi, or a simulator of it.

    Args:
        key_id, private_key: sign handshakes and REST calls; None where the other side asks for no signature.
        tickers: what to capture; empty = every open market without combos, up to `tickers_max`.
    """

    def __init__(
        self,
        *,
        rest_url: str,
        websocket_url: str,
        key_id: str,
        private_key: PrivateKey | None,
        channels: Sequence[str],
        tickers: Sequence[str],
        tickers_max: int,
        clock: Clock,
    ) -> None:
        self._rest_url = rest_url
        self._websocket_url = websocket_url
        self._key_id = key_id
        self._private_key = private_key
        self._channels = tuple(channels)
        self._tickers = tuple(tickers)
        self._tickers_max = tickers_max
        self._clock = clock

    def venue(self, feed: str, wire: str) -> Venue:
        """What the connector needs to know."""
        return Venue(
            feed=feed,
            websocket_url=self._websocket_url,
            wire=wire,
            headers=lambda: self._signed("GET", self._websocket_url),
            subscription=self._subscription,
            new_session=KalshiSession,
            new_mapper=lambda session: KalshiMapper(feed, session),
            is_fatal=is_fatal,
        )

    def _signed(self, method: str, url: str) -> dict[str, str]:
        if self._private_key is None:
            return {}
        return headers(self._key_id, self._private_key, self._clock.now_ns() // 1_000_000, method, urlsplit(url).path)

    async def _subscription(self) -> Subscription:
        tickers = self._tickers or await self._open_tickers()
        return Subscription(self._channels, tickers)

    async def _open_tickers(self) -> tuple[str, ...]:
        """All open markets' tickers, in the venue's order; cut at `tickers_max`.

        Raises:
            Unavailable: no answer, an answer that does not fit, or a cursor that goes in circles.
        """
        url = f"{self._rest_url}/markets"
        found: dict[str, None] = {}
        cursor, seen = "", set[str]()
        async with httpx.AsyncClient(timeout=REST_TIMEOUT_S) as client:
            for _ in range(PAGES_MAX):
                page = await self._page(client, url, cursor)
                found.update(dict.fromkeys(market.ticker for market in page.markets))
                cursor = page.cursor
                if not cursor or len(found) >= self._tickers_max:
                    return tuple(found)[: self._tickers_max]
                if cursor in seen:
                    raise Unavailable(f"the listing at {url} goes in circles: cursor {cursor[:40]!r} came twice")
                seen.add(cursor)
        raise Unavailable(f"the listing at {url} has more than {PAGES_MAX} pages")

    async def _page(self, client: httpx.AsyncClient, url: str, cursor: str) -> _Page:
        params = {"status": "open", "mve_filter": "exclude", "limit": str(PAGE_LIMIT), **({"cursor": cursor} if cursor else {})}
        try:
            answer = await client.get(url, params=params, headers=self._signed("GET", url))
        except httpx.HTTPError as error:
            raise Unavailable(f"cannot reach {url}: {error or type(error).__name__}") from error
        if answer.status_code != httpx.codes.OK:
            raise Unavailable(f"{url} answered {answer.status_code}: {answer.text[:200]}")
        try:
            return msgspec.json.decode(answer.content, type=_Page)
        except msgspec.DecodeError as error:
            raise Unavailable(f"{url} answered what is no page of markets: {error}") from error


def is_fatal(status: int, body: bytes) -> bool:
    """Whether a refused handshake will be refused again: a wrong key is, a clock that is off is not.

    Source: Kalshi API documentation, authentication; the bodies were recorded on the demo exchange in June 2026.
    """
    return status in (401, 403) and _EXPIRED not in body
