"""Settings of a simulator."""

from __future__ import annotations

from typing import Literal

import msgspec

from ssmd.errors import Misconfigured
from ssmd.exchanges.kalshi.simulated.market_orders import VenueOrder
from ssmd.exchanges.kalshi.simulated.model_settings import Preset
from ssmd.exchanges.kalshi.simulated.rest_calls import LIVE_WINDOW_S

FrameFault = Literal[
    "drop-connection",
    "drop-frame",
    "duplicate-frame",
    "reorder-frames",
    "stall",
    "bad-json",
    "unknown-type",
    "channel-error",
    "buffer-overflow",
]
HandshakeFault = Literal["handshake-401", "handshake-expired", "handshake-429", "handshake-500", "handshake-503"]
CommandFault = Literal["command-timeout", "command-refused", "command-full", "command-lost"]
RestFault = Literal[
    "rest-401",
    "rest-expired",
    "rest-404",
    "rest-429",
    "rest-500",
    "rest-502",
    "rest-503",
    "rest-504",
    "rest-slow",
    "rest-stale",
    "half-page",
    "missing-rows",
    "cursor-loop",
]


class FaultOrder(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A fault to come.

    Attributes:
        kind: what goes wrong. On frames: the connection is dropped without a close; a frame is not sent, sent twice, or
            sent after its successor; nothing is sent any more (`stall_ms`); a frame that is no JSON or of an unknown
            type comes before the real one; a terminal error (10 channel-error, 25 buffer-overflow) ends the
            subscriptions. On commands: error 18 (`command-timeout`), 27 (`command-refused`), 26 (`command-full`), or silence.
            On handshakes and REST calls: that status; `expired` is the 401 of a clock that is off. On REST calls besides:
            an answer after stall_ms; one that the same call got up to 15 s ago; one that ends in the middle; a list
            without every other row, its cursor unchanged; a page that gives its own cursor again.
        after_frames: frame faults wait until this many frames were handed to sockets after the order.
        count: how many frames, commands, handshakes or calls it hits.
        stall_ms: how long a stall lasts, 0 = until the connection ends; how late a slow answer is.
        path: REST faults: only calls whose path below /trade-api/v2 starts so.
    """

    kind: FrameFault | HandshakeFault | CommandFault | RestFault
    after_frames: int = 0
    count: int = 1
    stall_ms: int = 0
    path: str = ""

    def __post_init__(self) -> None:
        if self.after_frames < 0 or self.count < 1 or self.stall_ms < 0:
            raise ValueError("expected after_frames >= 0, count >= 1, stall_ms >= 0")


class SimulatorConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a simulator serves, where and to whom.

    Attributes:
        host, port: where REST and WebSocket listen; port 0 takes a free one. Control always listens on loopback.
        capture: path of a .jsonl or .jsonl.zst capture; "" = the seeded model.
        speed: "1x", "Nx" (N whole) or "max" (as fast as clients read).
        on_drop: what follows when a client leaves in the middle of a capture connection: `resume` gives the next
            handshake the rest of it, from the frame after the last one handed to the socket (frames in flight are lost,
            which is the point); `restart` begins it again; `next` goes on with the next one.
        seed, markets, combos, rate, roll_s, determine_s, settle_s, depth, keeps_thursdays, trades_kept,
            start_ns: of the model (`ModelSettings`); start_ns 0 = now.
        preset: a load made of measured figures (`model_settings.with_preset`), in place of rate (and for "exchange", of
            markets, depth and roll_s).
        history_s: so much model time has passed already when it starts to serve: there are trades and candles of before.
        live_window_s: what is older is on the historical calls only; the real venue's is about 90 days.
        lag_s: REST does not know a market for so long after its creation.
        public_keys: PEM by key id; who may connect.
        require_auth: False lets everybody in and checks nothing.
        skew_s: a timestamp further than this from our clock, either way, is refused.
        ping_s, pong_deadline_s: a ping each ping_s; a client that has not answered any for pong_deadline_s is dropped.
        buffer_bytes: at paced speeds a client with more than this unread gets error 25.
        session_markets_max: more markets than this over a session's subscriptions get error 26.
        commands_s: more commands a second than this on one connection get error 27.
        compression: agree to permessage-deflate with clients that offer it.
        sending_ts: stamp frames with `sending_ts_ms`.
        rest_tokens_s: read tokens a second for each key, and for all callers without one; a call costs 10, the bucket
            holds two seconds of them; 0 = no limit.
        edge_cache_s: unsigned calls get answers up to so old, with an Age header; the real venue's edge has 15.
        start_paused: hold the frames back until POST /simulator/resume.
        faults: ordered from the start.
        orders: changes of markets and of the exchange to come, each at its `at_s`.
    """

    host: str = "127.0.0.1"
    port: int = 0
    capture: str = ""
    speed: str = "1x"
    on_drop: Literal["resume", "next", "restart"] = "resume"
    seed: int = 1
    markets: int = 20
    combos: int = 0
    rate: int = 200
    roll_s: int = 120
    determine_s: int = 10
    settle_s: int = 30
    depth: int = 20
    keeps_thursdays: bool = False
    trades_kept: int = 20_000
    start_ns: int = 0
    preset: Preset = ""
    history_s: int = 0
    live_window_s: int = LIVE_WINDOW_S
    lag_s: int = 0
    public_keys: dict[str, str] = {}
    require_auth: bool = True
    skew_s: int = 20
    ping_s: int = 10
    pong_deadline_s: int = 30
    buffer_bytes: int = 8 * 1024 * 1024
    session_markets_max: int = 500_000
    commands_s: int = 10_000
    compression: bool = False
    sending_ts: bool = False
    rest_tokens_s: int = 200
    edge_cache_s: int = 0
    start_paused: bool = False
    faults: tuple[FaultOrder, ...] = ()
    orders: tuple[VenueOrder, ...] = ()


def _check_capture(config: SimulatorConfig) -> None:
    if config.capture and (config.orders or config.preset or config.history_s):
        raise Misconfigured("orders, preset and history_s belong to the model, not to a capture", mend="leave one of them out")


def check(config: SimulatorConfig) -> None:
    """Refuse settings that cannot work.

    Raises:
        Misconfigured: names the setting and what it should be.
    """
    speed_of(config.speed)
    _check_capture(config)
    if config.require_auth and not config.public_keys:
        raise Misconfigured(
            "the simulator checks signatures, but public_keys is empty",
            mend="register a public key, or set require_auth: false",
        )
    for name, least, most in (
        ("port", 0, 65_535),
        ("markets", 1, 100_000),
        ("combos", 0, 100_000),
        ("rate", 1, 1_000_000),
        ("roll_s", 1, 10**9),
        ("ping_s", 1, 3_600),
        ("pong_deadline_s", 1, 86_400),
        ("skew_s", 1, 86_400),
        ("buffer_bytes", 65_536, 1 << 30),
        ("rest_tokens_s", 0, 10**9),
        ("start_ns", 0, 1 << 62),
        ("determine_s", 1, 10**9),
        ("settle_s", 1, 10**9),
        ("depth", 1, 99),
        ("trades_kept", 1, 10**7),
        ("history_s", 0, 30 * 86_400),
        ("live_window_s", 0, 10**9),
        ("lag_s", 0, 86_400),
        ("session_markets_max", 1, 10**9),
        ("commands_s", 1, 10**9),
        ("edge_cache_s", 0, 3_600),
    ):
        value = getattr(config, name)
        if not least <= value <= most:
            raise Misconfigured(f"simulator {name} is {value}; expected {least} to {most}")


def speed_of(text: str) -> int:
    """How many times as fast as real, 0 for "max".

    Raises:
        Misconfigured: not "max" and not a whole number >= 1 followed by x.
    """
    if text == "max":
        return 0
    number = text.removesuffix("x")
    if text.endswith("x") and number.isascii() and number.isdigit() and int(number[:12]) >= 1 and len(number) <= 9:
        return int(number)
    raise Misconfigured(f"speed is {text!r}; expected 1x, Nx (N a whole number) or max", mend="--speed 10x")
