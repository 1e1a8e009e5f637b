"""What docs/gateway.md tells to say and to ask is understood by the gateway, line by line."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import msgspec
from tests.gateway.conftest import DEADLINE_S, Gateway, gateway
from tests.gateway.test_access import Desk, bearer, ready

from ssmd.domain.listing import DECIDER, Market, ObserveMarket
from ssmd.gateway.api_keys import SCOPES
from ssmd.gateway.documents import OPERATIONS

__all__ = ["gateway"]
PAGE = (Path(__file__).resolve().parents[2] / "docs" / "gateway.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^    (\{\"id\".*\})$", PAGE, re.MULTILINE)
QUESTIONS = re.findall(r"^    curl -s \"\$URL(.*)\"$", PAGE, re.MULTILINE)


async def test_every_command_and_question_of_the_page(gateway: Gateway) -> None:
    desk = Desk()
    key = await desk.make()
    market = Market("KXBTC15M-1", "KXBTC15M", "Crypto", "Up or down?")
    await desk.application.handle(DECIDER, ("kalshi", "KXBTC15M-E"), ObserveMarket(market), actor="test")
    async with gateway(**desk.around()) as running:
        await ready(running)
        tape = running.tape
        await running.settled(running.put(tape.snapshot("KXBTC15M-1"), tape.trade("KXBTC15M-1")))
        async with asyncio.timeout(DEADLINE_S):
            while running.service.state.listings.find("KXBTC15M-1") is None:
                await asyncio.sleep(0.001)
        resuming = [text for text in COMMANDS if "resume_from" in text]
        async with running.connect(additional_headers=bearer(key.text)) as client:
            for text in (one for one in COMMANDS if one not in resuming):
                await client.send(text)
                while (message := await client.next())["type"] in {"snapshot", "trade"}:
                    pass
                assert (message["type"] in {"ack", "mode", "pong"}, message["id"]) == (True, msgspec.json.decode(text)["id"])
        for text in resuming:
            async with running.connect(additional_headers=bearer(key.text)) as client:
                await client.send(text)
                # Understood; the sequences are those of another stream.
                assert (await client.next())["code"] == "stream-changed"
        async with httpx.AsyncClient(base_url=running.url, headers=bearer(key.text)) as http:
            statuses = {question: (await http.get(question)).status_code for question in QUESTIONS}
    # This gateway's archive is empty.
    assert statuses == {question: 404 if "?at=" in question else 200 for question in QUESTIONS}
    assert len(COMMANDS) >= 6


def test_the_page_asks_for_everything_there_is() -> None:
    asked = {re.sub(r"KXBTC15M-1", "{ticker}", urlsplit(one).path).replace("2026-05-14", "{date}") for one in QUESTIONS}
    told_elsewhere = {"/v1/health", "/v1/days", "/v1/captures"}
    assert {operation.path for operation in OPERATIONS} - told_elsewhere == asked
    assert all(f"| `{scope}` |" in PAGE for scope in SCOPES)
