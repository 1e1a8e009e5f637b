"""The venue's REST calls as a pure function: path and parameters in, status and body out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol
from urllib.parse import unquote

from ssmd.exchanges.kalshi.simulated import listing_queries as queries
from ssmd.exchanges.kalshi.simulated import rest_objects as objects
from ssmd.exchanges.kalshi.simulated.listing import SECOND_NS, Event, series_of
from ssmd.exchanges.kalshi.simulated.listing_queries import BadParameter
from ssmd.exchanges.kalshi.simulated.market import Market, Trade
from ssmd.exchanges.kalshi.simulated.wire import rfc3339

ROOT = "/trade-api/v2"
_LIVE_WINDOW_NS = 90 * 86_400 * SECOND_NS
_CLOSE_FILTERS = frozenset({"min_close_ts", "max_close_ts"})


class Listed(Protocol):
    """What is answered from: the seeded model, or what a capture holds. Trades are oldest first."""

    @property
    def markets(self) -> Mapping[str, Market]: ...

    @property
    def events(self) -> Mapping[str, Event]: ...

    @property
    def trades(self) -> Sequence[Trade]: ...

    @property
    def now_ns(self) -> int: ...


class Answer(NamedTuple):
    """HTTP status and JSON body."""

    status: int
    body: object


Query = Mapping[str, str]


class RestCalls:
    """Answers GET calls under `ROOT` about `listed`."""

    def __init__(self, listed: Listed, *, settlement_timer_s: int, refill_rate: int) -> None:
        self._listed = listed
        self._settlement_timer_s = settlement_timer_s
        self._refill_rate = refill_rate
        self._fixed: dict[tuple[str, ...], Callable[[Query], Answer]] = {
            ("exchange", "status"): self._status,
            ("exchange", "schedule"): lambda _: Answer(200, objects.SCHEDULE),
            ("series",): self._series_list,
            ("events",): self._events,
            ("markets",): self._markets,
            ("markets", "trades"): self._trades,
            ("markets", "orderbooks"): self._orderbooks,
            ("historical", "cutoff"): self._cutoff,
            ("account", "limits"): self._limits,
        }

    def answer(self, path: str, query: Query) -> Answer:
        """The answer to GET `path` (below `ROOT`, "/markets"), 404 for a path the venue does not have."""
        parts = tuple(unquote(part) for part in path.strip("/").split("/"))
        try:
            call = self._fixed.get(parts)
            return call(query) if call is not None else self._one(parts, query)
        except BadParameter as refused:
            return Answer(400, refused.body)

    def _one(self, parts: tuple[str, ...], query: Query) -> Answer:
        listed = self._listed
        match parts:
            case ("markets", ticker):
                market = listed.markets.get(ticker)
                return _not_found("market") if market is None else Answer(200, {"market": self._market(market)})
            case ("markets", ticker, "orderbook"):
                market = listed.markets.get(ticker)
                depth = self._depth(query)
                return (
                    _not_found("market") if market is None else Answer(200, {"orderbook_fp": objects.orderbook(market, depth)})
                )
            case ("events", ticker):
                return self._event(ticker, query)
            case ("series", ticker):
                event = next((event for event in listed.events.values() if event.series == ticker), None)
                if event is None:
                    return _not_found("series")
                return Answer(200, {"series": objects.series(series_of(event), listed.now_ns)})
            case _:
                return Answer(404, {"code": "not_found", "message": "not found", "details": "page not found"})

    def _status(self, _: Query) -> Answer:
        body = {"exchange_active": True, "trading_active": True, "intra_exchange_transfers_active": True}
        return Answer(200, body)

    def _limits(self, _: Query) -> Answer:
        rate = self._refill_rate
        read = {"bucket_capacity": 2 * rate, "refill_rate": rate}
        write = {"bucket_capacity": rate // 2, "refill_rate": rate // 2}
        return Answer(200, {"grants": [], "read": read, "usage_tier": "basic", "write": write})

    def _cutoff(self, _: Query) -> Answer:
        at = rfc3339(max(self._listed.now_ns - _LIVE_WINDOW_NS, 0))
        names = ("market_settled_ts", "trades_created_ts", "orders_updated_ts", "market_positions_last_updated_ts")
        return Answer(200, dict.fromkeys(names, at))

    def _series_list(self, query: Query) -> Answer:
        found = {event.series: series_of(event) for event in self._listed.events.values()}
        category = query.get("category", "")
        rows = [held for _, held in sorted(found.items()) if not category or held.category == category]
        return Answer(200, {"series": [objects.series(held, self._listed.now_ns) for held in rows]})

    def _events(self, query: Query) -> Answer:
        wanted = queries.page(query, "GetEvents", default=200, maximum=200)
        statuses, tickers = queries.status_filter(query), queries.names(query, "tickers")
        series = query.get("series_ticker", "")
        members = self._members()

        def fits(event: Event) -> bool:
            return (
                (not series or event.series == series)
                and (tickers is None or event.ticker in tickers)
                and (statuses is None or any(held.phase in statuses for held in members.get(event.ticker, ())))
            )

        shown, cursor = queries.cut(self._listed.events.values(), lambda event: event.ticker, fits, wanted)
        nested = query.get("with_nested_markets") == "true"
        bodies = []
        for event in shown:
            body = self._event_body(event)
            if nested:
                body["markets"] = [self._market(held) for held in members.get(event.ticker, ())]
            bodies.append(body)
        return Answer(200, {"events": bodies, "cursor": cursor})

    def _event(self, ticker: str, query: Query) -> Answer:
        event = self._listed.events.get(ticker)
        if event is None:
            return _not_found("event")
        body = self._event_body(event)
        markets = [self._market(held) for held in self._members().get(ticker, ())]
        if query.get("with_nested_markets") == "true":
            body["markets"] = markets
            return Answer(200, {"event": body})
        return Answer(200, {"event": body, "markets": markets})

    def _markets(self, query: Query) -> Answer:
        wanted = queries.page(query, "GetMarkets", default=100, maximum=1000)
        statuses, tickers = queries.status_filter(query), queries.names(query, "tickers")
        event, series = query.get("event_ticker", ""), query.get("series_ticker", "")
        _pairing(query, statuses)
        least, most = _bounds(query, "close")

        def fits(held: Market) -> bool:
            return (
                (statuses is None or held.phase in statuses)
                and (tickers is None or held.spec.ticker in tickers)
                and (not event or held.spec.event.ticker == event)
                and (not series or held.spec.event.series == series)
                and least <= held.spec.close_ns // SECOND_NS <= most
                and query.get("mve_filter") != "only"  # this venue makes no combos
            )

        shown, cursor = queries.cut(self._listed.markets.values(), lambda held: held.spec.ticker, fits, wanted)
        return Answer(200, {"cursor": cursor, "markets": [self._market(held) for held in shown]})

    def _trades(self, query: Query) -> Answer:
        wanted = queries.page(query, "GetTrades", default=100, maximum=1000)
        ticker = query.get("ticker", "")
        least, most = _bounds(query, "")

        def fits(held: Trade) -> bool:
            return (not ticker or held.ticker == ticker) and least <= held.ts_ns // SECOND_NS <= most

        shown, cursor = queries.cut(reversed(self._listed.trades), lambda held: held.trade_id, fits, wanted)
        return Answer(200, {"cursor": cursor, "trades": [objects.trade(held) for held in shown]})

    def _orderbooks(self, query: Query) -> Answer:
        tickers = [name for name in query.get("tickers", "").split(",") if name]
        if not 1 <= len(tickers) <= 100:
            raise BadParameter(
                {"code": "invalid_parameters", "message": "invalid parameters", "details": "tickers: expected 1 to 100"}
            )
        found = [self._listed.markets[name] for name in tickers if name in self._listed.markets]
        rows = [{"ticker": held.spec.ticker, "orderbook_fp": objects.orderbook(held)} for held in found]
        return Answer(200, {"orderbooks": rows})

    def _depth(self, query: Query) -> int:
        depth = queries.whole(query.get("depth") or "0", "depth")
        if not 0 <= depth <= 100:
            raise BadParameter(
                {"code": "invalid_parameters", "message": "invalid parameters", "details": "depth: expected 0 to 100"}
            )
        return depth

    def _market(self, held: Market) -> dict[str, object]:
        return objects.market(held, self._settlement_timer_s)

    def _event_body(self, event: Event) -> dict[str, object]:
        return objects.event(event, series_of(event).category, self._listed.now_ns)

    def _members(self) -> dict[str, list[Market]]:
        members: dict[str, list[Market]] = {}
        for held in self._listed.markets.values():
            members.setdefault(held.spec.event.ticker, []).append(held)
        return members


def _pairing(query: Query, statuses: Iterable[str] | None) -> None:
    """Time filters pair with one status: close with closed or none."""
    if statuses is not None and query.get("status") != "closed" and _CLOSE_FILTERS & query.keys():
        details = "min_close_ts and max_close_ts go with status closed or none"
        raise BadParameter({"error": {"code": "bad_request", "message": "bad request", "details": details}})


def _bounds(query: Query, name: str) -> tuple[int, int]:
    """Inclusive bounds in seconds from `min_{name}_ts` and `max_{name}_ts` (or `min_ts` and `max_ts`)."""
    middle = f"{name}_" if name else ""
    least, most = query.get(f"min_{middle}ts", ""), query.get(f"max_{middle}ts", "")
    return (
        queries.whole(least, f"min_{middle}ts") if least else -(1 << 62),
        queries.whole(most, f"max_{middle}ts") if most else 1 << 62,
    )


def _not_found(what: str) -> Answer:
    return Answer(404, {"error": {"code": "not_found", "message": "not found", "details": f"{what} not found"}})
