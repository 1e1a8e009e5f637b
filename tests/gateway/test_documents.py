"""The served documents are what the types say, and the gateway keeps to them whatever it is asked."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.specs.openapi.checks import positive_data_acceptance
from tests.gateway.conftest import Gateway, Tape, _gateway
from tests.gateway.test_access import Desk
from tests.gateway.test_access import ready as until_ready

from ssmd.gateway.commands import parse_command
from ssmd.gateway.documents import asyncapi_document, openapi_document, rendered
from ssmd.gateway.messages import Refusal
from ssmd.streams.transport_memory import MemoryTransport

REFERENCE = Path(__file__).resolve().parents[2] / "docs" / "reference"
WRITE = "python -m ssmd.gateway.documents docs/reference"


@pytest.mark.parametrize(("name", "document"), [("openapi", openapi_document()), ("asyncapi", asyncapi_document())])
async def test_the_documents_are_served_and_kept(gateway: Gateway, name: str, document: dict[str, Any]) -> None:
    assert (REFERENCE / f"{name}.json").read_bytes() == rendered(document), WRITE
    async with gateway() as running, httpx.AsyncClient(base_url=running.url) as http:
        assert (await http.get(f"/{name}.json")).content == rendered(document)


def test_every_reference_leads_somewhere() -> None:
    for document in (openapi_document(), asyncapi_document()):
        for path in _references(document):
            found: Any = document
            for part in path.removeprefix("#/").split("/"):
                found = found[part.replace("~1", "/")]
            assert found


def _references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for item in value.values():
            yield from _references(item)
    elif isinstance(value, list):
        for item in value:
            yield from _references(item)


def test_what_the_asyncapi_document_lets_one_say_is_understood() -> None:
    document = asyncapi_document()
    names = {
        document["components"]["messages"][one["$ref"].rpartition("/")[2]]["name"]
        for one in document["operations"]["command"]["messages"]
    }
    fields: dict[str, dict[str, Any]] = {
        "subscribe": {"tickers": ["A"], "kinds": ["book"], "resume_from": 7, "stream": "x"},
        "unsubscribe": {"tickers": ["*"]},
        "mode": {"mode": "conflated", "interval_ms": 500},
        "ping": {},
    }
    assert names == set(fields)
    for name, given in fields.items():
        command = parse_command(msgspec.json.encode({"id": 1, "cmd": name, **given}).decode())
        assert not isinstance(command, Refusal), command


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[str, str]]:
    """A gateway in a thread of its own, with some of everything: its url, and a key."""
    ready, done = threading.Event(), threading.Event()
    found: list[tuple[str, str]] = []

    async def serve() -> None:
        tape, desk = Tape(), Desk()
        key = await desk.make(requests_per_s=1_000_000)
        async with _gateway(MemoryTransport(), **desk.around()) as running:
            await until_ready(running)
            running.tape = tape
            records = (
                tape.snapshot("A/1"),
                tape.trade("A/1"),
                tape.quote("B"),
                tape.status("B"),
                tape.gap("B"),
                tape.trade("C%"),
            )
            await running.settled(running.put(*records))
            found.append((running.url, key.text))
            ready.set()
            while not done.is_set():
                await asyncio.sleep(0.05)

    thread = threading.Thread(target=asyncio.run, args=[serve()])
    thread.start()
    assert ready.wait(10)
    yield found[0]
    done.set()
    thread.join(10)


SCHEMA = schemathesis.openapi.from_dict(msgspec.json.decode(rendered(openapi_document())))


@SCHEMA.parametrize()
@settings(
    max_examples=8,
    deadline=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_whatever_is_asked_the_answer_is_as_documented(case: schemathesis.Case[Any], served: tuple[str, str]) -> None:
    url, key = served
    answer = case.call(base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=20)
    if answer.status_code == 414:
        # A refusal that schemathesis does not count as one.
        assert len(answer.request.url or "") > 8_000
        return
    # A cursor made up is refused, and so is the 31st of April: no schema says which ones are good.
    case.validate_response(answer, excluded_checks=[positive_data_acceptance])
    assert answer.status_code < 500
    assert "Traceback" not in answer.text
