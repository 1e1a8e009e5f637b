"""What could not be processed, in one list: frames, events, and messages that no segment could take.

All are journaled where they are met; the frames themselves wait on the dead-letter stream (the tape and the raw archive have
them anyway). Where many came at once the stream alone has the rest of them (`connector.quarantine`), and where the stream
is away, or has let a frame go, the journal still knows that there is one. Running a letter through today's code, and giving
it up, are journaled for all of them.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Literal, NamedTuple

import msgspec

from ssmd.application.handler import Application
from ssmd.domain import dead_letter
from ssmd.errors import Malformed, Rejected
from ssmd.exchanges.adapter import Mapper
from ssmd.projections import queries
from ssmd.projections.folder import POISON
from ssmd.projections.projection import Projection, position_token, row_key
from ssmd.projections.reading import AsOf
from ssmd.projections.rebuild import fold_in_memory
from ssmd.projections.store import RowStore
from ssmd.projections.troubles import DeadLetter
from ssmd.projections.views import PROJECTIONS, Views
from ssmd.schemas.blocks import Entry, EntryKind
from ssmd.services.archive_intake import Intake
from ssmd.services.connector.frame_letter import FRAME_BYTES_MAX, Unmapped, letter_id, recording
from ssmd.services.projection_record import ProjectionRecord
from ssmd.streams.journal import Journal
from ssmd.streams.transport import StreamMessage, StreamName, Transport

Kind = Literal["frame", "event", "segment"]
FRAMES_MAX: Final = 10_000
"""So many of the newest messages of the dead-letter stream are looked at."""
READ_S: Final = 2.0
_STREAMS: Final[Mapping[str, StreamName]] = {"raw": "raw", "market": "market"}


class Letter(msgspec.Struct, frozen=True):
    """A dead letter; `letter` as the journal has it, or would have it.

    Attributes:
        text: the frame; "" also where there is none.
        is_gone: it is of a frame, which the dead-letter stream does not have (any more), or the stream is away.
    """

    kind: Kind
    letter: DeadLetter
    text: str = ""
    is_base64: bool = False
    is_cut: bool = False
    is_gone: bool = False

    @property
    def id(self) -> str:
        return self.letter.id


class Outcome(msgspec.Struct, frozen=True):
    """What became of a letter. `ok`: it is closed now (or would be), else `detail` says why not."""

    id: str
    kind: Kind
    ok: bool
    detail: str


class DeadLetterOffice(NamedTuple):
    """What is needed to look through dead letters and to close them.

    Attributes:
        transport: None = it is away: frames that the journal was not told of, and the bytes of all, cannot be told.
        rows: where views are kept, None = each question folds them.
        new_mapper: feed, session -> today's mapper.
        intakes: the archivers', by stream.
    """

    journal: Journal
    views: Views
    transport: Transport | None
    rows: RowStore | None
    application: Application
    new_mapper: Callable[[str, int], Mapper]
    intakes: Mapping[StreamName, Intake]
    actor: str

    async def letters(self, kind: Kind | None = None, *, is_open: bool = True) -> list[Letter]:
        """All letters, oldest first; `is_open`: only those that wait.

        Raises:
            Unavailable: journal or stream are away.
        """
        known = {one.id: one for one in await queries.dead_letters(self.views, is_open=False)}
        found = [frame_letter(unmapped, known) for unmapped in await self._quarantined()]
        frames = {one.id for one in found}
        rest = [(kind_of(one), one) for one in known.values() if one.id not in frames]
        found += [Letter(sort, one, is_gone=sort == "frame") for sort, one in rest]
        wanted = [one for one in found if kind in {None, one.kind} and (not is_open or one.letter.status == "open")]
        return sorted(wanted, key=lambda one: (one.letter.recorded_ns, one.id))

    async def _quarantined(self) -> list[Unmapped]:
        if self.transport is None:
            return []
        state = await self.transport.state("dlq")
        after = max(state.first_seq - 1, state.last_seq - FRAMES_MAX, 0)
        if after >= state.last_seq:
            return []
        reader = await self.transport.read("dlq", after=after)
        messages: list[StreamMessage] = []
        try:
            while (not messages or messages[-1].seq < state.last_seq) and (more := await reader.next(READ_S)):
                messages += more
        finally:
            await reader.close()
        found = {}
        for message in messages:
            try:
                one = msgspec.json.decode(message.payload, type=Unmapped)
            except msgspec.DecodeError:
                continue  # of a component of another version: not ours to judge
            found[one.connection, one.session, one.n] = one
        return list(found.values())

    async def replay(self, letter: Letter, *, is_dry: bool) -> Outcome:
        """Run it through today's code; closed if that takes it.

        Raises:
            Unavailable: a backend is away.
        """
        if letter.letter.status == "discarded":
            return Outcome(letter.id, letter.kind, ok=False, detail=f"was discarded: {letter.letter.closed_why}")
        judge = {"frame": self._frame, "event": self._event, "segment": self._message}[letter.kind]
        ok, detail = await judge(letter)
        if ok and not is_dry:
            if letter.kind == "event" and self.rows is not None:
                record = ProjectionRecord(self.application, self.actor)
                built = await record.rebuild(self.journal, self.rows, view_of(letter))
                if built.outcome == "diverged":
                    return Outcome(
                        letter.id, letter.kind, ok=False, detail="the rebuilt view differs otherwise, too: not replaced"
                    )
            await self._close(letter, dead_letter.RecordReplay(detail))
        return Outcome(letter.id, letter.kind, ok, detail)

    async def discard(self, letter: Letter, reason: str, *, is_dry: bool) -> Outcome:
        """Give it up, for a reason."""
        if letter.letter.status == "replayed":
            return Outcome(letter.id, letter.kind, ok=False, detail="was processed after all")
        if not is_dry:
            await self._close(letter, dead_letter.DiscardDeadLetter(reason))
        return Outcome(letter.id, letter.kind, ok=True, detail=f"discarded: {reason}")

    async def _close(self, letter: Letter, command: dead_letter.RecordReplay | dead_letter.DiscardDeadLetter) -> None:
        one, parts = letter.letter, (letter.id,)
        recorded = dead_letter.RecordDeadLetter(
            one.component, one.source, one.message_position, one.subject, one.what, one.reason
        )
        # Of many frames at once the journal knows some only once somebody has decided on them.
        await self.application.handle(dead_letter.DECIDER, parts, recorded, actor=self.actor)
        await self.application.handle(dead_letter.DECIDER, parts, command, actor=self.actor)

    async def _frame(self, letter: Letter) -> tuple[bool, str]:
        if letter.is_gone:
            return False, "the dead-letter stream does not have it; ssmd data renormalize judges it from the archive"
        if letter.is_cut:
            return False, "only its beginning is here; ssmd data renormalize judges it from the archive"
        feed, _, _ = letter.letter.subject.partition("/")
        _, session, n = letter.id.rsplit("-", 2)
        payload = base64.b64decode(letter.text) if letter.is_base64 else letter.text.encode()
        mapper = self.new_mapper(feed, int(session))
        mapped = mapper.map(Entry(EntryKind.IN, int(n), letter.letter.recorded_ns, payload))
        if mapped.unmapped:
            return False, f"mapper {mapper.version} does not understand it either: {mapped.unmapped}"
        return True, f"mapper {mapper.version} makes {len(mapped.records)} records of it"

    async def _event(self, letter: Letter) -> tuple[bool, str]:
        view, position = view_of(letter), letter.letter.message_position
        store = await fold_in_memory(self.journal, [view], as_of=AsOf(position=position))
        key = row_key(POISON, position_token(position))
        if (await store.read(view.name, keys=[key])).rows:
            return False, f"view {view.name} version {view.version} cannot fold it either"
        return True, f"view {view.name} version {view.version} folds it"

    async def _message(self, letter: Letter) -> tuple[bool, str]:
        stream = _STREAMS.get(letter.letter.source)
        if stream is None or self.transport is None:
            return False, f"stream {letter.letter.source} is away"
        message = await self.transport.get(stream, letter.letter.message_position)
        if message is None:
            return False, "it is no longer on the stream; ssmd tape republish brings what the tape has"
        try:
            self.intakes[stream].take(message)
        except Malformed as error:
            return False, f"today's archiver cannot read it either: {error.message}"
        return True, "today's archiver reads it; ssmd tape republish brings it to the archive"


def view_of(letter: Letter) -> Projection:
    """The view that could not fold the letter's event.

    Raises:
        Rejected: this program has no such view.
    """
    name = letter.id.rpartition("-")[0]
    for view in PROJECTIONS:
        if view.name == name:
            return view
    raise Rejected("no-such-view", f"dead letter {letter.id} is of view {name!r}, which this version does not fold")


def kind_of(letter: DeadLetter) -> Kind:
    """What a journaled letter is about."""
    if letter.source == "journal":
        return "event"
    return "segment" if letter.source in _STREAMS else "frame"


def frame_letter(frame: Unmapped, known: Mapping[str, DeadLetter]) -> Letter:
    """The letter of a frame in quarantine, with what the journal knows of it."""
    name, command = letter_id(frame), recording(frame)
    told = DeadLetter(
        name,
        component=command.component,
        source=command.source,
        message_position=command.position,
        subject=command.subject,
        reason=command.reason,
    )
    letter = msgspec.structs.replace(known.get(name, told), recorded_ns=frame.ts_recv_ns)
    text = frame.text or frame.b64
    size = len(frame.text.encode()) if frame.text else len(frame.b64) * 3 // 4
    return Letter("frame", letter, text, is_base64=bool(frame.b64), is_cut=size >= FRAME_BYTES_MAX - 3)


def chosen(letters: Sequence[Letter], ids: Sequence[str]) -> list[Letter]:
    """Those with these ids, in the order asked for.

    Raises:
        Rejected: there is no such letter.
    """
    by_id = {one.id: one for one in letters}
    for one in ids:
        if one not in by_id:
            raise Rejected("no-such-dead-letter", f"there is no dead letter {one}", mend="ssmd dlq list --all")
    return [by_id[one] for one in dict.fromkeys(ids)]
