"""Settings of a simulator."""

from __future__ import annotations

from typing import Literal

import msgspec

from ssmd.errors import Misconfigured

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
HandshakeFault = Literal["handshake-401", "handshake-503"]
RestFault = Literal["rest-429", "rest-500", "rest-503", "cursor-loop"]


class FaultOrder(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A fault to come.

    Attributes:
        kind: what goes wrong. On frames: the connection is dropped without a close; a frame is not sent, sent twice, or
            sent after its successor; nothing is sent any more (`stall_ms`); a frame that is no JSON or of an unknown
            type comes before the real one; a terminal error (10 channel-error, 25 buffer-overflow) ends the
            subscriptions. On handshakes and REST calls: that status; or a page that gives its own cursor again.
        after_frames: frame faults wait until this many frames were handed to sockets after the order.
        count: how many frames, handshakes or calls it hits.
        stall_ms: how long a stall lasts; 0 = until the connection ends.
    """

    kind: FrameFault | HandshakeFault | RestFault
    after_frames: int = 0
    count: int = 1
    stall_ms: int = 0

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
        seed, markets, rate, roll_s, start_ns: of the model (`ModelSettings`); start_ns 0 = now.
        public_keys: PEM by key id; who may connect.
        require_auth: False lets everybody in and checks nothing.
        skew_s: a timestamp further than this from our clock, either way, is refused.
        ping_s, pong_deadline_s: a ping each ping_s; a client that has not answered any for pong_deadline_s is dropped.
        buffer_bytes: at paced speeds a client with more than this unread gets error 25.
        rest_tokens_s: read tokens a second for all REST callers, a call costs 10; 0 = no limit.
        start_paused: hold the frames back until POST /simulator/resume.
        faults: ordered from the start.
    """

    host: str = "127.0.0.1"
    port: int = 0
    capture: str = ""
    speed: str = "1x"
    on_drop: Literal["resume", "next", "restart"] = "resume"
    seed: int = 1
    markets: int = 20
    rate: int = 200
    roll_s: int = 120
    start_ns: int = 0
    public_keys: dict[str, str] = {}
    require_auth: bool = True
    skew_s: int = 20
    ping_s: int = 10
    pong_deadline_s: int = 30
    buffer_bytes: int = 8 * 1024 * 1024
    rest_tokens_s: int = 0
    start_paused: bool = False
    faults: tuple[FaultOrder, ...] = ()


def check(config: SimulatorConfig) -> None:
    """Refuse settings that cannot work.

    Raises:
        Misconfigured: names the setting and what it should be.
    """
    speed_of(config.speed)
    if config.require_auth and not config.public_keys:
        raise Misconfigured(
            "the simulator checks signatures, but public_keys is empty",
            mend="register a public key, or set require_auth: false",
        )
    for name, least, most in (
        ("port", 0, 65_535),
        ("markets", 1, 100_000),
        ("rate", 1, 1_000_000),
        ("roll_s", 1, 10**9),
        ("ping_s", 1, 3_600),
        ("pong_deadline_s", 1, 86_400),
        ("skew_s", 1, 86_400),
        ("buffer_bytes", 65_536, 1 << 30),
        ("rest_tokens_s", 0, 10**9),
        ("start_ns", 0, 1 << 62),
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
