"""The mapper for msgspec events: released bytes, upcasting, and what it refuses."""

from __future__ import annotations

import secrets
import zlib
from decimal import Decimal
from typing import Any, ClassVar
from uuid import UUID, uuid4

import msgspec
import pytest
from eventsourcing.application import Application
from eventsourcing.cipher import AESCipher
from eventsourcing.domain import Snapshot
from eventsourcing.persistence import JSONTranscoder, MapperDeserialisationError, StoredEvent
from eventsourcing.utils import Environment, get_topic

from ssmd.streams.persistence_mapper import MsgspecMapper, Upcaster


class Placed(msgspec.Struct, frozen=True, tag="order.placed.v3"):
    originator_id: UUID
    originator_version: int
    total: Decimal
    currency: str
    lines: tuple[int, ...] = ()


class Closed(msgspec.Struct, frozen=True, tag="order.closed.v1"):
    originator_id: UUID
    originator_version: int


class ShopMapper(MsgspecMapper[UUID]):
    events = (Placed, Closed)
    upcasters: ClassVar = {
        "order.placed.v1": Upcaster("order.placed.v2", lambda data: {"total": str(data["cents"] / 100)}),
        "order.placed.v2": Upcaster("order.placed.v3", lambda data: data | {"currency": "EUR"}),
    }


ORDER = UUID("018f3c4e-0000-7000-8000-000000000001")
MAPPER = ShopMapper(JSONTranscoder())


def test_what_is_stored_is_the_tag_and_the_fields() -> None:
    stored = MAPPER.to_stored_event(Placed(ORDER, 1, Decimal("12.50"), "EUR", (1, 2)))
    assert stored == StoredEvent(ORDER, 1, "order.placed.v3", b'{"total":"12.50","currency":"EUR","lines":[1,2]}')
    assert MAPPER.to_domain_event(stored) == Placed(ORDER, 1, Decimal("12.50"), "EUR", (1, 2))
    assert MAPPER.to_domain_event(MAPPER.to_stored_event(Closed(ORDER, 2))) == Closed(ORDER, 2)


@pytest.mark.parametrize(
    ("tag", "state"),
    [("order.placed.v1", b'{"cents":1250}'), ("order.placed.v2", b'{"total":"12.5"}')],
)
def test_old_bytes_become_the_newest_event(tag: str, state: bytes) -> None:
    assert MAPPER.to_domain_event(StoredEvent(ORDER, 4, tag, state)) == Placed(ORDER, 4, Decimal("12.5"), "EUR")


def test_compressed_and_encrypted_events_come_back() -> None:
    environment = Environment(env={"CIPHER_KEY": AESCipher.create_key(16)})
    mapper = ShopMapper(JSONTranscoder(), compressor=zlib, cipher=AESCipher(environment))  # type: ignore[arg-type]  # a module, as the library allows
    stored = mapper.to_stored_event(Closed(ORDER, 2))
    assert stored.state != b"{}"
    assert mapper.to_domain_event(stored) == Closed(ORDER, 2)
    with pytest.raises(MapperDeserialisationError, match=r"order\.closed\.v1"):
        MAPPER.to_domain_event(stored)


@pytest.mark.parametrize(
    ("tag", "state", "reason"),
    [
        ("order.placed.v4", b"{}", "none of the events"),
        ("order.placed.v3", b"{}", "missing required field"),
        ("order.placed.v3", b"\xff", "order.placed.v3"),
        ("order.placed.v1", b"{}", "cents"),
    ],
)
def test_what_cannot_be_read_is_named(tag: str, state: bytes, reason: str) -> None:
    with pytest.raises(MapperDeserialisationError, match=reason):
        MAPPER.to_domain_event(StoredEvent(ORDER, 1, tag, state))


def test_an_event_of_another_mapper_is_not_stored() -> None:
    class Other(msgspec.Struct, frozen=True, tag="order.placed.v3"):
        originator_id: UUID
        originator_version: int

    with pytest.raises(TypeError, match="none of the events of ShopMapper"):
        MAPPER.to_stored_event(Other(ORDER, 1))


@pytest.mark.parametrize(
    ("steps", "reason"),
    [({"a": "b", "b": "a"}, "go round"), ({"a": "b"}, "lead to 'b'")],
)
def test_upcasters_that_lead_nowhere_are_refused_at_once(steps: dict[str, str], reason: str) -> None:
    made: dict[str, Any] = {old: Upcaster(new, dict) for old, new in steps.items()}
    with pytest.raises(TypeError, match=reason):
        type("Wrong", (MsgspecMapper,), {"events": (Closed,), "upcasters": made})


def test_an_application_uses_it_on_jetstream(journal_url: str) -> None:
    variables = {
        "PERSISTENCE_MODULE": "ssmd.streams.persistence",
        "JETSTREAM_URL": journal_url,
        "JETSTREAM_STREAM_PREFIX": f"t{secrets.token_hex(6)}",
        "MAPPER_TOPIC": get_topic(ShopMapper),
        "IS_SNAPSHOTTING_ENABLED": "yes",
    }
    with Application[UUID](env=variables) as app:
        order = uuid4()
        written = app.events.put([Placed(order, 1, Decimal(3), "EUR"), Closed(order, 2)])
        assert [one.notification.topic for one in written] == ["order.placed.v3", "order.closed.v1"]
        read: list[Any] = list(app.events.get(order))
        assert read == [Placed(order, 1, Decimal(3), "EUR"), Closed(order, 2)]
        assert app.snapshots is not None
        snapshot = Snapshot(
            originator_id=order, originator_version=2, timestamp=Snapshot.create_timestamp(), topic="x", state={}
        )
        app.snapshots.put([snapshot])
        assert list(app.snapshots.get(order, desc=True, limit=1)) == [snapshot]
