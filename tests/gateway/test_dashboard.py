"""The dashboard in a real browser: live, by keyboard, on a phone, in both colours, and through a disconnect."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, async_playwright
from tests.conftest import find_tool
from tests.gateway.conftest import Gateway, Running
from tests.gateway.test_access import Desk, ready

from ssmd.clock import date_of
from ssmd.domain.trading_day import DECIDER, RecordStep, StartDay
from ssmd.schemas.records import Side

pytestmark = [
    pytest.mark.needs_tool("chromium"),
    pytest.mark.timeout(180),
    # One loop for all: one browser for all.
    pytest.mark.asyncio(loop_scope="module"),
]
WAIT_MS = 45_000


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser | None]:
    """One for all tests here; each has pages with cookies and storage of their own. None = there is none, and no test runs."""
    program = find_tool("chromium")
    if program is None:
        yield None
        return
    async with async_playwright() as playwright:
        started = await playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield started
        await started.close()


@asynccontextmanager
async def browsing(browser: Browser, **options: Any) -> AsyncIterator[tuple[Page, list[str]]]:
    """A page in a context of its own, and what went wrong in it."""
    troubles: list[str] = []
    page = await browser.new_page(**options)
    try:
        page.set_default_timeout(WAIT_MS)
        page.on("pageerror", lambda error: troubles.append(str(error)))
        yield page, troubles
    finally:
        await page.close()


async def text_of(page: Page, selector: str) -> str:
    return await page.inner_text(selector)


async def shows(page: Page, selector: str, *words: str) -> None:
    for word in words:
        await page.wait_for_function(
            "([selector, word]) => document.querySelector(selector).innerText.includes(word)", arg=[selector, word]
        )


def fill(running: Running) -> None:
    tape = running.tape
    running.put(tape.snapshot("KX-1"), tape.snapshot("KX-2"), tape.trade("KX-1", 4600, 300), tape.status("KX-1"))


async def test_it_shows_what_is_live_and_survives_a_disconnect(gateway: Gateway, browser: Browser) -> None:
    desk = Desk()
    around = {**desk.around(), "journal": None}
    async with gateway(**around) as running, browsing(browser) as (page, troubles):
        fill(running)
        await ready(running)
        port = int(running.url.rpartition(":")[2])
        await page.goto(running.url)
        await shows(page, "#state", "live")
        await shows(page, "#book", "0.4500", "100.00", "0.4700", "25.00")
        await shows(page, "#trust", "KX-1: book verified")
        await shows(page, "#feeds", "kalshi", "live", "records/s", "0 messages")
        await shows(page, "#system", "does its job", "stream position")
        # What was there before the page came: the last trade, what is known of the market.
        await shows(page, "#trades", "0.4600", "3.00")
        await shows(page, "#about", "open", "spread 0.0200")
        await shows(page, "#day", "pending")
        for section in ("#gaps", "#days", "#inventory", "#coverage"):
            assert await text_of(page, section)
        running.put(running.tape.delta("KX-1", 4500, 250), running.tape.trade("KX-1", 4700, 100))
        await shows(page, "#book", "102.50")
        await shows(page, "#trades", "0.4700")
        running.put(running.tape.gap("KX-1"))
        await shows(page, "#trust", "not verified: gap, disconnected")
        # By keyboard alone: another market.
        await page.focus("#ticker")
        await page.keyboard.press("Control+A")
        await page.keyboard.type("KX-2")
        await page.keyboard.press("Enter")
        await shows(page, "#trust", "KX-2: book verified")
        transport, tape = running.transport, running.tape
        await running.service.stop()
        assert running.task is not None
        await asyncio.wait([running.task])
        await shows(page, "#state", "disconnected")
        for message in tape.block(tape.delta("KX-2", 4700, 100, Side.ASK)):
            transport.put(message)
        async with gateway(transport, port=port, **around):
            await shows(page, "#state", "live")
            # What happened meanwhile was sent again, once.
            await shows(page, "#book", "26.00")
        assert troubles == []


async def test_it_asks_for_a_key_where_one_is_needed(gateway: Gateway, browser: Browser) -> None:
    desk = Desk()
    key = await desk.make()
    await desk.application.handle(DECIDER, ("2026-05-14",), StartDay("2026-05-14"), actor="cli:anna")
    today = date_of(desk.clock.now_ns())
    await desk.application.handle(DECIDER, (today,), StartDay(today), actor="cli:anna")
    await desk.application.handle(DECIDER, (today,), RecordStep("start", "secmaster", "7 markets"), actor="temporal")
    async with gateway(**desk.around()) as running, browsing(browser) as (page, troubles):
        fill(running)
        await ready(running)
        await page.goto(running.url)
        await shows(page, "#ask", "An API key is needed")
        await page.fill("#key", "ssmd_wrong")
        await page.keyboard.press("Enter")
        await shows(page, "#ask-why", "not known here")
        await page.fill("#key", key.text)
        await page.keyboard.press("Enter")
        await shows(page, "#state", "live")
        await shows(page, "#days", "2026-05-14")
        await shows(page, "#day", "starting", "start: secmaster, 7 markets", "start requested", "cli:anna")
        assert key.text not in page.url
        assert key.text not in await page.content()
        assert troubles == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_on_a_phone_in_both_colours_for_everybody(gateway: Gateway, browser: Browser, scheme: str) -> None:
    options = {"viewport": {"width": 360, "height": 740}, "color_scheme": scheme, "reduced_motion": "reduce"}
    async with gateway() as running, browsing(browser, **options) as (page, troubles):
        fill(running)
        await ready(running)
        await page.goto(running.url)
        await shows(page, "#book", "0.4500")
        assert await page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        # No word is broken in two to fit: the cells of the book are one line high.
        assert await page.evaluate(
            "[...document.querySelectorAll('#book td, #markets td')].every((one) => one.offsetHeight < 48)"
        )
        # Contrast of text on its card, by the WCAG formula.
        ratio = await page.evaluate(
            """() => {
              const light = (color) => {
                const [r, g, b] = color.match(/[\\d.]+/g).slice(0, 3).map((one) => one / 255)
                  .map((one) => (one <= 0.03928 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4));
                return 0.2126 * r + 0.7152 * g + 0.0722 * b;
              };
              const card = getComputedStyle(document.querySelector("section")).backgroundColor;
              return [...document.querySelectorAll("th, td, h2, p, caption, .good, .warn")].filter((one) => one.innerText)
                .map((one) => [light(getComputedStyle(one).color), light(card)].sort((a, b) => b - a))
                .map(([a, b]) => (a + 0.05) / (b + 0.05)).reduce((a, b) => Math.min(a, b));
            }"""
        )
        assert ratio >= 4.5
        unnamed = await page.evaluate(
            """() => [...document.querySelectorAll("section, input, nav, dialog")]
              .filter((one) => !one.getAttribute("aria-labelledby") && !one.getAttribute("aria-label") && !one.labels?.length)
              .map((one) => one.outerHTML)"""
        )
        assert unnamed == []
        await page.keyboard.press("Tab")
        assert await page.evaluate("document.activeElement.className") == "skip"
        await asyncio.sleep(0)
        assert troubles == []


async def test_the_page_of_the_interfaces(gateway: Gateway, browser: Browser) -> None:
    async with gateway() as running, browsing(browser) as (page, troubles):
        await page.goto(f"{running.url}/docs")
        await shows(page, "#operations", "/v1/markets/{ticker}/orderbook", "depth")
        await shows(page, "#messages", "subscribe", "resume_from", "from the gateway")
        assert troubles == []
