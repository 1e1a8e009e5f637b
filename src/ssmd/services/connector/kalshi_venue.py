"""Kalshi as a `Venue`: signed handshakes, the subscription from settings or from the venue's own listing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from ssmd.clock import Clock
from ssmd.errors import Unavailable
from ssmd.exchanges.adapter import Subscription
from ssmd.exchanges.kalshi.normalize import KalshiMapper
from ssmd.exchanges.kalshi.session import KalshiSession
from ssmd.exchanges.kalshi.signing import PrivateKey, headers
from ssmd.exchanges.kalshi.subscriptions import UNFILTERED
from ssmd.identifiers import system_random
from ssmd.services.connector.kalshi_listing import KalshiListing, Pauses
from ssmd.services.connector.venue import Venue
from ssmd.services.http_client import httpx
from ssmd.services.kalshi_rest.client import KalshiRest, RestAccount, RestSettings, Signer
from ssmd.services.kalshi_rest.repair import KalshiRepairer

REST_TIMEOUT_S: Final = 10.0
ROTATION_GRACE_S: Final = 45
"""For how long, after one was accepted, keys may be refused before that counts as final: another may be on its way."""
UNAUTHORIZED: Final = 401
_EXPIRED: Final = b"header_timestamp_expired"


class VenueKey(NamedTuple):
    """What requests are signed with; `private_key` None = nothing is signed."""

    key_id: str
    private_key: PrivateKey | None


class KalshiAccess:
    """How one environment reaches Kalshi, or a simulator of it.

    Args:
        key_id, private_key: sign handshakes and REST calls; None where the other side asks for no signature.
        ask_key: the key as it is now, asked for each signature, in place of those two.
        tickers: what to capture; empty = every open market without combos, up to `tickers_max`.
    """

    def __init__(
        self,
        *,
        rest_url: str,
        websocket_url: str,
        key_id: str = "",
        private_key: PrivateKey | None = None,
        ask_key: Callable[[], VenueKey] | None = None,
        channels: Sequence[str],
        tickers: Sequence[str],
        tickers_max: int,
        clock: Clock,
    ) -> None:
        self._rest_url = rest_url
        self._websocket_url = websocket_url
        fixed = VenueKey(key_id, private_key)
        self._ask_key = ask_key
        self._key = ask_key or (lambda: fixed)
        self._is_proven = False
        self._refused_since_ns = 0
        self._channels = tuple(channels)
        self._tickers = tuple(tickers)
        self._tickers_max = tickers_max
        self._clock = clock
        self._account = RestAccount(clock)

    def venue(self, feed: str, wire: str) -> Venue:
        """What the connector needs to know."""
        pauses = Pauses(self.listing(), self._clock)
        return Venue(
            feed=feed,
            websocket_url=self._websocket_url,
            wire=wire,
            headers=lambda: self._signed("GET", self._websocket_url),
            subscription=self._subscription,
            new_session=lambda subscription: _NoticedSession(subscription, self._on_accepted),
            new_mapper=lambda session: KalshiMapper(feed, session),
            is_fatal=self._is_fatal,
            pause_at=pauses.text_at,
            prepare=pauses.refresh,
            shared_channels=frozenset(UNFILTERED),
            repairer=KalshiRepairer(self._rest_url, self._signer(), self._clock, system_random, account=self._account),
        )

    def listing(self) -> KalshiListing:
        """The venue's listing, asked with this access."""

        def client(settings: RestSettings) -> KalshiRest:
            return KalshiRest(self._rest_url, self._signer(), self._clock, system_random, settings, self._account)

        return KalshiListing(client, lambda words: self._is_fatal(UNAUTHORIZED, words.encode()))

    def _signer(self) -> Signer | None:
        return self._signed if self._key().private_key is not None else None

    def _on_accepted(self) -> None:
        self._is_proven, self._refused_since_ns = True, 0

    def _is_fatal(self, status: int, body: bytes) -> bool:
        """As `is_fatal`, but where a key was accepted before, a rotation is given time to reach us."""
        if not is_fatal(status, body):
            return False
        if self._ask_key is None or not self._is_proven:
            return True
        now_ns = self._clock.now_ns()
        self._refused_since_ns = self._refused_since_ns or now_ns
        return now_ns - self._refused_since_ns > ROTATION_GRACE_S * 1_000_000_000

    def _signed(self, method: str, url: str) -> dict[str, str]:
        key = self._key()
        if key.private_key is None:
            return {}
        return headers(key.key_id, key.private_key, self._clock.now_ns() // 1_000_000, method, urlsplit(url).path)

    async def _subscription(self) -> Subscription:
        tickers = self._tickers or await self._open_tickers()
        return Subscription(self._channels, tickers)

    async def _open_tickers(self) -> tuple[str, ...]:
        """All open markets' tickers, in the venue's order; cut at `tickers_max`. Raises as `KalshiListing.open_markets`."""
        found = await self.listing().open_markets(limit=self._tickers_max)
        return tuple(one.ticker for one in found)[: self._tickers_max]


class _NoticedSession(KalshiSession):
    """Tells that its handshake was accepted."""

    def __init__(self, subscription: Subscription, on_accepted: Callable[[], None]) -> None:
        super().__init__(subscription)
        self._on_accepted = on_accepted

    def open(self) -> list[bytes]:
        self._on_accepted()
        return super().open()


async def ask_whether_accepted(rest_url: str, key: VenueKey, clock: Clock) -> str:
    """Why Kalshi refuses `key`, "" = it takes it. Asks for the account's limits, which nobody else may see.

    Raises:
        Unavailable: no answer that says so.
    """
    url = f"{rest_url}/account/limits"
    if key.private_key is None:
        return "there is no private key"
    signed = headers(key.key_id, key.private_key, clock.now_ns() // 1_000_000, "GET", urlsplit(url).path)
    try:
        async with httpx.AsyncClient(timeout=REST_TIMEOUT_S) as client:
            answer = await client.get(url, headers=signed)
    except httpx.HTTPError as error:
        raise Unavailable(f"cannot reach {url}: {type(error).__name__}") from error
    if answer.status_code == httpx.codes.OK:
        return ""
    if answer.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
        if _EXPIRED in answer.content:
            raise Unavailable(f"{url} says that our clock is off", mend="set this machine's clock")
        return f"the venue answered {answer.status_code}: it does not take this key"
    raise Unavailable(f"{url} answered {answer.status_code}")


def is_fatal(status: int, body: bytes) -> bool:
    """Whether a refused handshake will be refused again: a wrong key is, a clock that is off is not.

    Source: Kalshi API documentation, authentication; the bodies were recorded on the demo exchange in June 2026.
    """
    return status in (401, 403) and _EXPIRED not in body
