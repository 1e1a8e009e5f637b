"""The venue's REST calls as a pure function: path and parameters in, status and body out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from urllib.parse import unquote

from ssmd.exchanges.kalshi.combos import is_combo
from ssmd.exchanges.kalshi.simulated import listing_queries as queries
from ssmd.exchanges.kalshi.simulated import rest_objects as objects
from ssmd.exchanges.kalshi.simulated.listing import SECOND_NS, Event, series_of
from ssmd.exchanges.kalshi.simulated.listing_queries import BadParameter
from ssmd.exchanges.kalshi.simulated.market import Market
from ssmd.exchanges.kalshi.simulated.rest_history import History
from ssmd.exchanges.kalshi.simulated.rest_listed import Answer, Listed, Query, not_found
from ssmd.exchanges.kalshi.simulated.wire import rfc3339

__all__ = ["ROOT", "Answer", "Listed", "RestCalls"]

ROOT = "/trade-api/v2"
LIVE_WINDOW_S = 90 * 86_400
CAPACITY_S = 2
"""Seconds of refill the bucket of reads holds (Basic tier, July 2026)."""


class RestCalls:
    """Answers GET calls under `ROOT` about `listed`.

    Args:
        live_window_s: what ended longer ago is historical.
        lag_s: lists and single calls do not know a market for so long after its creation, as the venue's do at times.
    """

    def __init__(
        self,
        listed: Listed,
        *,
        settlement_timer_s: int,
        refill_rate: int,
        live_window_s: int = LIVE_WINDOW_S,
        lag_s: int = 0,
    ) -> None:
        self._listed = listed
        self._lag_ns = lag_s * SECOND_NS
        self._history = History(listed, live_window_s=live_window_s, settlement_timer_s=settlement_timer_s)
        self._settlement_timer_s = settlement_timer_s
        self._refill_rate = refill_rate
        self._fixed: dict[tuple[str, ...], Callable[[Query], Answer]] = {
            ("exchange", "status"): self._status,
            ("exchange", "schedule"): lambda _: Answer(200, objects.SCHEDULE),
            ("series",): self._series_list,
            ("events",): self._events,
            ("markets",): self._markets,
            ("events", "multivariate"): self._combo_events,
            ("markets", "trades"): self._history.live_trades,
            ("markets", "candlesticks"): self._history.many_candles,
            ("markets", "orderbooks"): self._orderbooks,
            ("historical", "cutoff"): self._history.cutoff,
            ("historical", "trades"): self._history.past_trades,
            ("historical", "markets"): self._history.past_markets,
            ("account", "limits"): self._limits,
            ("account", "endpoint_costs"): lambda _: Answer(200, objects.ENDPOINT_COSTS),
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
                market = self._known(ticker)
                return not_found("market") if market is None else Answer(200, {"market": self._market(market)})
            case ("markets", ticker, "orderbook"):
                market = self._known(ticker)
                depth = self._depth(query)
                return (
                    not_found("market") if market is None else Answer(200, {"orderbook_fp": objects.orderbook(market, depth)})
                )
            case ("events", ticker):
                return self._event(ticker, query)
            case ("series", ticker):
                event = next((event for event in listed.events.values() if event.series == ticker), None)
                if event is None:
                    return not_found("series")
                return Answer(200, {"series": objects.series(series_of(event), listed.now_ns)})
            case ("series", series, "markets", ticker, "candlesticks"):
                return self._history.candles(ticker, series, query)
            case ("historical", "markets", ticker):
                return self._history.past_market(ticker)
            case ("historical", "markets", ticker, "candlesticks"):
                return self._history.past_candles(ticker, query)
            case _:
                return Answer(404, {"code": "not_found", "message": "not found", "details": "page not found"})

    def _status(self, _: Query) -> Answer:
        now_ns = self._listed.now_ns
        resumes_ns = self._listed.hours.resumes_ns(now_ns)
        states = {"exchange_active": self._listed.hours.exchange_active(now_ns), "trading_active": not resumes_ns}
        body: dict[str, object] = {
            **states,
            "intra_exchange_transfers_active": True,
            "exchange_index_statuses": [{"exchange_index": 0, "intra_exchange_transfers_active": True, **states}],
        }
        if resumes_ns:
            body["exchange_estimated_resume_time"] = rfc3339(resumes_ns)
        return Answer(200, body)

    def _limits(self, _: Query) -> Answer:
        rate = self._refill_rate
        read = {"bucket_capacity": CAPACITY_S * rate, "refill_rate": rate}
        write = {"bucket_capacity": rate // 2, "refill_rate": rate // 2}
        return Answer(200, {"grants": [], "read": read, "usage_tier": "basic", "write": write})

    def _series_list(self, query: Query) -> Answer:
        found = {event.series: series_of(event) for event in self._listed.events.values()}
        category = query.get("category", "")
        since = queries.bounds(query, "updated")[0]
        rows = [
            held
            for _, held in sorted(found.items())
            if (not category or held.category == category)
            and (not query.get("tags") or (held.category in query["tags"].split(",") and held.frequency != "fifteen_min"))
            and since <= self._listed.now_ns // SECOND_NS
        ]
        return Answer(200, {"series": [objects.series(held, self._listed.now_ns) for held in rows]})

    def _events(self, query: Query) -> Answer:
        wanted = queries.page(query, "GetEvents", default=200, maximum=200)
        statuses, tickers = queries.status_filter(query), queries.names(query, "tickers")
        series = query.get("series_ticker", "")
        closing, updated = queries.bounds(query, "close")[0], queries.bounds(query, "updated")[0]
        members = self._members()

        def fits(event: Event) -> bool:
            return (
                not is_combo(event.ticker)
                and (not series or event.series == series)
                and (tickers is None or event.ticker in tickers)
                and (statuses is None or any(held.phase in statuses for held in members.get(event.ticker, ())))
                and any(_is_after(held, closing, updated) for held in members.get(event.ticker, ()))
            )

        shown, cursor = queries.cut(self._listed.events.values(), lambda event: event.ticker, fits, wanted)
        bodies = self._event_bodies(shown, members, query)
        milestones: dict[str, object] = {"milestones": []} if query.get("with_milestones") == "true" else {}
        return Answer(200, {"events": bodies, **milestones, "cursor": cursor})

    def _combo_events(self, query: Query) -> Answer:
        wanted = queries.page(query, "GetMultivariateEvents", default=100, maximum=200)
        series, collection = query.get("series_ticker", ""), query.get("collection_ticker", "")
        if series and collection:
            raise BadParameter(
                {"error": {"code": "bad_request", "message": "bad request", "details": "series_ticker or collection_ticker"}}
            )
        members = self._members()

        def fits(event: Event) -> bool:
            combos = (held.spec.combo for held in members.get(event.ticker, ()))
            return (
                is_combo(event.ticker)
                and (not series or event.series == series)
                and (not collection or any(combo is not None and combo.collection == collection for combo in combos))
            )

        shown, cursor = queries.cut(self._listed.events.values(), lambda event: event.ticker, fits, wanted)
        return Answer(200, {"events": self._event_bodies(shown, members, query), "cursor": cursor})

    def _event_bodies(
        self, events: Iterable[Event], members: Mapping[str, list[Market]], query: Query
    ) -> list[dict[str, object]]:
        bodies = [self._event_body(event) for event in events]
        if query.get("with_nested_markets") == "true":
            for body in bodies:
                body["markets"] = [self._market(held) for held in members.get(str(body["event_ticker"]), ())]
        return bodies

    def _event(self, ticker: str, query: Query) -> Answer:
        event = self._listed.events.get(ticker)
        if event is None:
            return not_found("event")
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
        queries.check_pairing(query)
        within = _times(query)

        def fits(held: Market) -> bool:
            return (
                (statuses is None or held.phase in statuses)
                and (tickers is None or held.spec.ticker in tickers)
                and (not event or held.spec.event.ticker == event)
                and (not series or held.spec.event.series == series)
                and within(held)
                and self._history.is_live(held)
                and self._is_listed(held)
                and queries.takes_combo(query, held.spec.ticker)
            )

        shown, cursor = queries.cut(self._listed.markets.values(), lambda held: held.spec.ticker, fits, wanted)
        return Answer(200, {"cursor": cursor, "markets": [self._market(held) for held in shown]})

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

    def _known(self, ticker: str) -> Market | None:
        held = self._listed.markets.get(ticker)
        return held if held is not None and self._is_listed(held) and self._history.is_live(held) else None

    def _is_listed(self, held: Market) -> bool:
        return not self._lag_ns or self._listed.now_ns - held.spec.created_ns >= self._lag_ns

    def _market(self, held: Market) -> dict[str, object]:
        return objects.market(held, self._settlement_timer_s)

    def _event_body(self, event: Event) -> dict[str, object]:
        return objects.event(event, series_of(event).category, self._listed.now_ns)

    def _members(self) -> dict[str, list[Market]]:
        members: dict[str, list[Market]] = {}
        for held in self._listed.markets.values():
            members.setdefault(held.spec.event.ticker, []).append(held)
        return members


def _is_after(held: Market, close_s: int, updated_s: int) -> bool:
    return held.spec.close_ns // SECOND_NS >= close_s and held.updated_ns // SECOND_NS >= updated_s


def _times(query: Query) -> Callable[[Market], bool]:
    """Whether a market's times are within the bounds asked for."""
    created, closing = queries.bounds(query, "created"), queries.bounds(query, "close")
    settled, updated = queries.bounds(query, "settled"), queries.bounds(query, "updated")
    is_settled_only = bool({"min_settled_ts", "max_settled_ts"} & query.keys())

    def within(held: Market) -> bool:
        return (
            created[0] <= held.spec.created_ns // SECOND_NS <= created[1]
            and closing[0] <= held.spec.close_ns // SECOND_NS <= closing[1]
            and (not is_settled_only or (held.settled_ns > 0 and settled[0] <= held.settled_ns // SECOND_NS <= settled[1]))
            and held.updated_ns // SECOND_NS >= updated[0]
        )

    return within
