"""`ssmd watch`: one market's book and trades in the terminal, over the gateway's public interface."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Annotated, Any, Final

import typer

from ssmd.cli.help_text import examples
from ssmd.cli.invocation import Invocation, invocation_of, run
from ssmd.cli.output import Format, OutputOption, cell_of, print_json_line, say
from ssmd.errors import Misconfigured, Rejected, Unavailable

app = typer.Typer(add_completion=False, rich_markup_mode=None)
DEPTH: Final = 10
TRADES_SHOWN: Final = 10
_NOT_FOUND: Final = 404
_SCREEN: Final = "\x1b[H\x1b[2J"
_CONNECT_S: Final = 10.0
_TRIES: Final = 5
_PAUSE_S: Final = 1.0
"""Before the first try again; before the second twice as long, and so on."""
_BEGIN_ANEW: Final = {"beyond-retention", "stream-changed", "resume-ahead", "cannot-resume"}
_WAIT: Final = {"catching-up", "gateway-stopping", "too-many-resuming"}
"""Refusals that pass by themselves."""
_KNOWN_TRIES: Final = 4
_KNOWN_POLL_S: Final = 1.0
"""A market that began a moment ago may have its first record only now."""


@dataclass
class Picture:
    """What is known of the market, folded from the gateway's messages."""

    ticker: str
    bids: dict[Decimal, Decimal] = field(default_factory=dict)
    asks: dict[Decimal, Decimal] = field(default_factory=dict)
    trades: deque[str] = field(default_factory=lambda: deque(maxlen=TRADES_SHOWN))
    trust: str = "no book yet"
    stream_seq: int = 0

    def take(self, message: dict[str, Any]) -> None:
        """The next message; of another market or about the connection: nothing happens."""
        if message.get("ticker") not in {self.ticker, "*"}:
            return
        self.stream_seq = message.get("stream_seq", self.stream_seq)
        match message["type"]:
            case "snapshot":
                self.bids = {Decimal(price): Decimal(size) for price, size in message["bids"]}
                self.asks = {Decimal(price): Decimal(size) for price, size in message["asks"]}
                self.trust = "verified" if message["verified"] else f"not verified: {message['reason']}"
            case "book":
                side = self.bids if message["side"] == "bid" else self.asks
                price, size = Decimal(message["price"]), Decimal(message["size"])
                size += side.get(price, Decimal(0)) if message["meaning"] == "change" else 0
                side[price] = size
                if not size:
                    del side[price]
            case "trade":
                self.trades.appendleft(f"{message['price']:>10} {message['size']:>12}  {message['aggressor']}")
            case "gap" if message["state"] == "opened":
                self.trust = f"not verified: gap, {message['cause']}"

    def lines(self) -> list[str]:
        """The picture as text."""
        bids = sorted(((price, size) for price, size in self.bids.items() if size > 0), reverse=True)[:DEPTH]
        asks = sorted((price, size) for price, size in self.asks.items() if size > 0)[:DEPTH]
        rows = [f"{self.ticker}   book {self.trust}   stream {self.stream_seq}", ""]
        rows.append(f"{'bid size':>12} {'bid':>10} | {'ask':<10} {'ask size':<12}")
        for at in range(max(len(bids), len(asks))):
            left = f"{bids[at][1]:>12} {bids[at][0]:>10}" if at < len(bids) else " " * 23
            right = f"{asks[at][0]:<10} {asks[at][1]:<12}" if at < len(asks) else ""
            rows.append(f"{left} | {right}".rstrip())
        return [*rows, "", f"{'price':>10} {'size':>12}  taker", *self.trades]


@app.command("watch", epilog=examples("ssmd watch KXBTC15M-26MAY141300-00", "ssmd watch TICKER -o json | jq .price"))
def watch(
    ctx: typer.Context,
    ticker: Annotated[str, typer.Argument(metavar="TICKER", help="The market.")],
    url: Annotated[str, typer.Option("--url", metavar="URL", help="Of the gateway; default: the environment's.")] = "",
    count: Annotated[int, typer.Option("--count", "-n", min=0, help="Stop after so many messages; 0 = never.")] = 0,
    output: OutputOption = Format.TABLE,
) -> None:
    """Show a market's book and trades as they change, until Ctrl-C. A key is taken from SSMD_GATEWAY_KEY."""
    invocation = invocation_of(ctx)
    picture = Picture(ticker)

    async def watched() -> None:
        seen = 0
        async for frame in _frames(_url(invocation, url), invocation.variables.get("SSMD_GATEWAY_KEY", ""), ticker):
            for message in frame:
                picture.take(message)
                if message["type"] == "error":
                    raise Rejected(message["code"], message["message"])
                if message["type"] not in {"ack", "resumed", "heartbeat"}:
                    seen += 1
                    if output is Format.JSON:
                        print_json_line(message)
            if output is Format.TABLE:
                _draw(picture)
            if count and seen >= count:
                return

    run(watched())


def _url(invocation: Invocation, given: str) -> str:
    if given:
        return given
    environment = invocation.resolve()
    if environment.run is not None:
        return environment.run.endpoints.gateway_url
    settings = environment.document.gateway
    if not settings.port:
        raise Misconfigured(
            f"{environment.name} does not run on this machine: its gateway has no address", mend=f"ssmd up {environment.name}"
        )
    return f"{'https' if settings.tls_certificate else 'http'}://{settings.host}:{settings.port}"


def _draw(picture: Picture) -> None:
    sys.stdout.write((_SCREEN if sys.stdout.isatty() else "") + "\n".join(map(cell_of, picture.lines())) + "\n")
    sys.stdout.flush()


async def _frames(url: str, key: str, ticker: str) -> AsyncIterator[list[dict[str, Any]]]:
    """What the gateway says of the market, from now on; a lost connection is taken up where it was."""
    import asyncio  # noqa: PLC0415 - keeps --help quick

    import msgspec  # noqa: PLC0415
    import websockets  # noqa: PLC0415

    at, stream = 0, ""
    address = url.rstrip("/").replace("http", "ws", 1) + "/v1/stream"
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    lost = 0
    while True:
        trouble: Exception | None = None
        try:
            async with websockets.connect(
                address, additional_headers=headers, max_size=None, open_timeout=_CONNECT_S
            ) as socket:
                again = {"resume_from": at, "stream": stream} if at else {}
                await socket.send(msgspec.json.encode({"id": 1, "cmd": "subscribe", "tickers": [ticker], **again}).decode())
                async for frame in socket:
                    messages: list[dict[str, Any]] = msgspec.json.decode(frame)
                    if at and any(message.get("code") in _BEGIN_ANEW for message in messages):
                        # Out of reach, or another stream: with a snapshot instead.
                        at = 0
                        break
                    ack = next((message for message in messages if message["type"] == "ack"), None)
                    if ack is not None:
                        stream = ack["stream"]
                        if not again and not ack["snapshots"]:
                            await _refuse_unknown(url, headers, ticker, is_silent=not ack["stream_seq"])
                    told = [message for message in messages if message["type"] != "error" or message["code"] not in _WAIT]
                    at = max([at, *(message["stream_seq"] for message in told if "ticker" in message)])
                    lost = 0 if told else lost
                    if told:
                        yield told
        except websockets.InvalidStatus as refused:
            status = refused.response.status_code
            mend = "export SSMD_GATEWAY_KEY=... (ssmd client create)" if status == 401 else ""
            raise Rejected("gateway-refused", f"the gateway at {url} answers {status}", mend=mend) from refused
        except (OSError, TimeoutError, websockets.WebSocketException) as error:
            trouble = error
        lost += 1
        # Whoever refuses the first connection is not there; a gateway that was is started again.
        if lost > _TRIES or (not stream and isinstance(trouble, ConnectionRefusedError)):
            raise Unavailable(f"no gateway answers at {url}", mend="ssmd up") from trouble
        say(f"connection lost; again in {lost * _PAUSE_S:g} s")
        await asyncio.sleep(lost * _PAUSE_S)


async def _refuse_unknown(url: str, headers: dict[str, str], ticker: str, *, is_silent: bool) -> None:
    """Ask whether the gateway has ever heard of a market that has no book.

    Args:
        is_silent: nothing of any market has reached the gateway: then it cannot tell.

    Raises:
        Rejected: "market-unknown".
    """
    import asyncio  # noqa: PLC0415 - keeps --help quick
    from urllib.parse import quote  # noqa: PLC0415

    from ssmd.services.http_client import httpx  # noqa: PLC0415

    if ticker.endswith("*"):
        return  # all that begin so, also those to come
    if is_silent:
        say("nothing of any market has reached the gateway yet: waiting")
        return
    async with httpx.AsyncClient(headers=headers, timeout=_CONNECT_S) as client:
        for tried in range(_KNOWN_TRIES):
            if tried:
                await asyncio.sleep(_KNOWN_POLL_S)
            try:
                answer = await client.get(f"{url.rstrip('/')}/v1/markets/{quote(ticker, safe='')}")
            except httpx.HTTPError:
                return  # the socket is what is watched; its end is told there
            if answer.status_code != _NOT_FOUND:
                return
    raise Rejected(
        "market-unknown",
        f"the gateway at {url} has had no record of a market {ticker}",
        mend="ssmd secmaster list, or ssmd secmaster search TEXT",
    )
