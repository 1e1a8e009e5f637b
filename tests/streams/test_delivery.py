"""Deliveries of JetStream that come twice or up to 16 places out of order: the records read are those of a clean run."""

from __future__ import annotations

import asyncio
import hashlib
from random import Random

import msgspec
import pytest

from ssmd.schemas.codecs import RecordEncoder, decode_records
from ssmd.schemas.records import BookDelta, Side, SizeMeaning
from ssmd.streams import subjects, topology
from ssmd.streams.connection import Connection
from ssmd.streams.nats_client import Arrived, message_id_of
from ssmd.streams.pull_consumer import PullConsumer, Pulled
from ssmd.streams.transport import Outgoing
from ssmd.streams.transport_nats import NatsTransport

MESSAGES = 600


def record(number: int) -> BookDelta:
    return BookDelta(
        "kalshi", f"T{number % 7}", number, number, 1, number, 0, 1, number, -4, -2, number, 100, Side.BID, SizeMeaning.CHANGE
    )


def digest(payloads: list[bytes]) -> str:
    state = hashlib.sha256()
    for payload in payloads:
        for one in decode_records(payload):
            state.update(repr(msgspec.structs.replace(one, session=0, n=0, ts_recv_ns=0)).encode())
    return state.hexdigest()


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_repeated_and_reordered_deliveries_change_no_record(
    transport_url: str, fresh_env: str, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = await Connection.open(transport_url, name="test", timeout_s=30)
    wanted = [one for one in topology.desired(fresh_env, max_age_s=3600, max_bytes=64 << 20) if one.endpoint == "transport"]
    await topology.apply({"transport": connection}, wanted)
    await connection.close()
    transport = await NatsTransport.open(transport_url, fresh_env)
    encode = RecordEncoder().encode
    sent = [encode(record(number)) for number in range(1, MESSAGES + 1)]
    publisher = await transport.publisher()
    await publisher.publish(
        [
            Outgoing(subjects.market(fresh_env, "kalshi", "book", f"T{number % 7}"), payload, f"id-{number}")
            for number, payload in enumerate(sent, 1)
        ]
    )
    async with asyncio.timeout(60):
        while publisher.acks("market") < MESSAGES:
            await publisher.progress(5)
    await publisher.close()
    random = Random(seed)
    disturbed = [0]
    unpacked = PullConsumer._unpacked

    def disturb(self: PullConsumer, taken: list[Arrived]) -> list[Pulled]:
        # A good part stays as it is, else nothing would ever go on.
        if len(taken) > 32 and disturbed[0] < 8:
            disturbed[0] += 1
            at = random.randrange(16, len(taken) - 16)
            window = taken[at : at + 16]
            random.shuffle(window)
            again = [taken[at - random.randrange(16)]]
            taken = [*taken[:at], *again, *window, *taken[at + 16 :]]
        return unpacked(self, taken)

    monkeypatch.setattr(PullConsumer, "_unpacked", disturb)
    reader = await transport.read("market", filters=[subjects.market_filter(fresh_env, "kalshi")])
    found: list[bytes] = []
    seqs: list[int] = []
    async with asyncio.timeout(30):
        while len(found) < MESSAGES:
            for message in await reader.next(5):
                found.append(message.payload)
                seqs.append(message.seq)
    await reader.close()
    await transport.close()
    assert disturbed[0] >= 1
    assert seqs == list(range(seqs[0], seqs[0] + MESSAGES))
    assert digest(found) == digest(sent)


async def test_messages_of_another_client_arrive_the_same_in_bulk_and_one_by_one(transport_url: str, fresh_env: str) -> None:
    sent: list[tuple[bytes, dict[str, str] | None, str]] = [
        (b"no headers", None, ""),
        (b"", None, ""),
        (b"an id among others", {"Before": "1", "Nats-Msg-Id": "a.b", "After": "Nats-Msg-Id: 2"}, "a.b"),
        (b"no id", {"Other": "x"}, ""),
        (b"", {"Nats-Msg-Id": "c"}, "c"),
    ]
    found: list[list[tuple[int, str, bytes, str]]] = []
    subject = subjects.raw(fresh_env, "kalshi", "main")
    for is_bulk in (True, False):
        connection = await Connection.open(transport_url, name="test", timeout_s=30, is_bulk=is_bulk)
        if is_bulk:
            wanted = topology.desired(fresh_env, max_age_s=3600, max_bytes=64 << 20)
            await topology.apply({"transport": connection}, [one for one in wanted if one.endpoint == "transport"])
            for payload, headers, _ in sent:
                await connection.request(subject, payload, timeout_s=30, headers=headers)
        consumer = await PullConsumer.open(connection, topology.stream_name(fresh_env, "raw"), after=0, filters=(), batch=2)
        pulled: list[Pulled] = []
        async with asyncio.timeout(30):
            while len(pulled) < len(sent):
                pulled += await consumer.next(1.0)
        assert consumer.failure == ""
        found.append([(one.seq, one.subject, one.payload, message_id_of(one.headers)) for one in pulled])
        await consumer.close()
        await connection.close()
    assert found[0] == found[1] == [(seq, subject, payload, one) for seq, (payload, _, one) in enumerate(sent, 1)]
