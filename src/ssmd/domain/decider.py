"""The form every aggregate has: commands, events, state, `decide`, `evolve`, bound into one `Decider`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

import msgspec

from ssmd.errors import Malformed

Command = TypeVar("Command")
Event = TypeVar("Event", bound=msgspec.Struct)
State = TypeVar("State")


@dataclass(frozen=True)
class Decider(Generic[Command, Event, State]):
    """One aggregate's rules.

    Laws (tests/properties): `decide` is deterministic and refuses only with `Rejected`; deciding the same command again
    on the evolved state yields nothing; `evolve` is total.

    Attributes:
        aggregate: the kind's name ("trading-day").
        id_parts: names of the id's parts, in order.
        initial: the state before the first event.
        events: every event type; each has an explicit, versioned msgspec tag.
    """

    aggregate: str
    id_parts: tuple[str, ...]
    initial: State
    decide: Callable[[State, Command], Sequence[Event]]
    evolve: Callable[[State, Event], State]
    events: tuple[type[Event], ...]

    def fold(self, events: Iterable[Event], state: State | None = None) -> State:
        """The state after `events`, from `state` or the initial one."""
        folded = self.initial if state is None else state
        for event in events:
            folded = self.evolve(folded, event)
        return folded


def tag_of(event: msgspec.Struct | type[msgspec.Struct]) -> str:
    """The event's stored type ("trading-day.started.v1")."""
    tag = event.__struct_config__.tag
    if not isinstance(tag, str):
        raise TypeError(f"{event!r} has no explicit tag")
    return tag


class Older(NamedTuple):
    """A released version of an event that is written no more.

    Attributes:
        event: its type, with the tag and the fields it was released with; kept for as long as journals may hold it.
        upcast: what it says as the version after it, total and deterministic. That one may be an `Older` itself.
    """

    event: type[msgspec.Struct]
    upcast: Callable[[Any], msgspec.Struct]


class Catalogue:
    """Every event type by tag: how stored data becomes an event again.

    This is where upcasting happens: whoever decodes through it (deciders, folds, queries, exports) knows current versions
    only. What is stored stays as it was written.

    Args:
        older: former versions.
    """

    def __init__(self, deciders: Iterable[Decider[Any, Any, Any]], older: Iterable[Older] = ()) -> None:
        self.deciders = {decider.aggregate: decider for decider in deciders}
        self._decoders: dict[str, msgspec.json.Decoder[Any]] = {}
        self._upcasts: dict[str, Callable[[Any], msgspec.Struct]] = {}
        self.current: dict[str, Callable[[bytes | msgspec.Raw], msgspec.Struct]] = {}
        """For those who read millions of events: tag -> `decode` of its data, for current versions only. It raises as msgspec
        does; whoever meets a tag that is not here, or an error, calls `decode`."""
        for former in older:
            tag = tag_of(former.event)
            if tag in self._upcasts:
                raise TypeError(f"two former events are tagged {tag!r}")
            self._decoders[tag] = msgspec.json.Decoder(former.event)
            self._upcasts[tag] = former.upcast
        for decider in self.deciders.values():
            for event in decider.events:
                tag = tag_of(event)
                if tag in self._decoders:
                    raise TypeError(f"two events are tagged {tag!r}")
                decoder = self._decoders[tag] = msgspec.json.Decoder(event)
                self.current[tag] = decoder.decode

    def decode(self, tag: str, data: bytes | msgspec.Raw) -> msgspec.Struct:
        """The event stored as `data` under `tag`, in its current version.

        Raises:
            Malformed: for a tag nobody released, or data that does not fit it.
        """
        decoder = self._decoders.get(tag)
        if decoder is None:
            raise Malformed(f"event type {tag!r} is unknown to this version of ssmd", mend="upgrade ssmd")
        try:
            event: msgspec.Struct = decoder.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise Malformed(f"event data does not fit {tag!r}: {error}") from error
        if self._upcasts:
            while (upcast := self._upcasts.get(tag)) is not None:
                event = upcast(event)
                tag = tag_of(event)
        return event

    @property
    def tags(self) -> tuple[str, ...]:
        """All known tags, sorted."""
        return tuple(sorted(self._decoders))
