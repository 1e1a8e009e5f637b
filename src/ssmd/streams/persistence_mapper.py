"""A mapper of the `eventsourcing` library for msgspec events: stable tags as topics, JSON as state, upcasting by tag.

The library's own mapper stores `vars(event)`, which structs lack, under the class's import path, which moves. Here an
event is a frozen `msgspec.Struct` with an explicit tag and the fields `originator_id` and `originator_version`:

    class OrderPlaced(msgspec.Struct, frozen=True, tag="order.placed.v2"):
        originator_id: str
        originator_version: int
        total: str

    class ShopMapper(MsgspecMapper[str]):
        events = (OrderPlaced,)
        upcasters = {"order.placed.v1": Upcaster("order.placed.v2", lambda data: data | {"total": "0"})}

and the environment says MAPPER_TOPIC=shop:ShopMapper. Events that are no structs (the library's snapshots) are stored as
the library does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple, cast
from uuid import UUID

import msgspec
from eventsourcing.domain import DomainEventProtocol, TAggregateID
from eventsourcing.persistence import Mapper, MapperDeserialisationError, StoredEvent

from ssmd.domain.decider import tag_of

ID: str = "originator_id"
VERSION: str = "originator_version"


class Upcaster(NamedTuple):
    """How data of one tag becomes data of the next one, `to`; `change` is pure and leaves its argument alone."""

    to: str
    change: Callable[[dict[str, Any]], dict[str, Any]]


class MsgspecMapper(Mapper[TAggregateID]):
    """See the module.

    Attributes:
        events: every event type in use; the newest version of each.
        upcasters: by the old tag. A chain ends at the tag of one of `events`.
    """

    events: ClassVar[tuple[type[msgspec.Struct], ...]] = ()
    upcasters: ClassVar[Mapping[str, Upcaster]] = {}
    _types: ClassVar[dict[str, type[msgspec.Struct]]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls._types = {}
        for event in cls.events:
            tag = tag_of(event)
            if tag in cls._types:
                raise TypeError(f"two events of {cls.__name__} are tagged {tag!r}")
            cls._types[tag] = event
        for tag in cls.upcasters:
            cls._end_of(tag)

    @classmethod
    def _end_of(cls, tag: str) -> str:
        seen = [tag]
        while tag in cls.upcasters:
            tag = cls.upcasters[tag].to
            if tag in seen:
                raise TypeError(f"the upcasters of {cls.__name__} go round: {' -> '.join([*seen, tag])}")
            seen.append(tag)
        if tag not in cls._types:
            raise TypeError(f"the upcasters of {cls.__name__} lead to {tag!r}, which is none of its events")
        return tag

    def to_stored_event(self, domain_event: DomainEventProtocol[TAggregateID]) -> StoredEvent:
        event: Any = domain_event
        if not isinstance(event, msgspec.Struct):
            return super().to_stored_event(domain_event)
        tag = tag_of(event)
        if self._types.get(tag) is not type(event):
            raise TypeError(f"{type(event).__name__} ({tag}) is none of the events of {type(self).__name__}")
        left_out = {ID, VERSION}
        fields = {name: getattr(event, name) for name in event.__struct_fields__ if name not in left_out}
        state = msgspec.json.encode(fields)
        if self.compressor:
            state = self.compressor.compress(state)
        if self.cipher:
            state = self.cipher.encrypt(state)
        return StoredEvent(domain_event.originator_id, domain_event.originator_version, tag, state)

    def to_domain_event(self, stored_event: StoredEvent) -> DomainEventProtocol[TAggregateID]:
        tag = stored_event.topic
        if tag not in self._types and tag not in self.upcasters:
            # An import path "module:Class" is how the library stores its own events.
            if ":" in tag:
                return super().to_domain_event(stored_event)
            raise MapperDeserialisationError(f"event type {tag!r} is none of the events of {type(self).__name__}")
        try:
            state = stored_event.state
            if self.cipher:
                state = self.cipher.decrypt(state)
            if self.compressor:
                state = self.compressor.decompress(state)
            data = msgspec.json.decode(state, type=dict[str, Any])
            while tag in self.upcasters:
                tag, change = self.upcasters[tag]
                data = change(data)
            fields = {**data, ID: _plain(stored_event.originator_id), VERSION: stored_event.originator_version}
            event: Any = msgspec.convert({**fields, _tag_field(self._types[tag]): tag}, self._types[tag])
        except Exception as error:
            # Whatever a cipher, a compressor or an upcaster raises: the library's callers know this one.
            raise MapperDeserialisationError(
                f"cannot read {stored_event.topic!r}, version {stored_event.originator_version} of "
                f"{stored_event.originator_id}: {error}"
            ) from error
        return cast("DomainEventProtocol[TAggregateID]", event)


def _plain(originator_id: UUID | str) -> str:
    return str(originator_id)


def _tag_field(event: type[msgspec.Struct]) -> str:
    return event.__struct_config__.tag_field or "type"
