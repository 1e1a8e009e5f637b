"""Mends what a verification found: from the first source that gives what was sealed, journaled before and after.

A damage is journaled when it is found, the repair when the object stands; killed between, the next run finds the object
whole and says so then.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from ssmd.application.handler import Application
from ssmd.archive.keys import parse_segment
from ssmd.archive.repair import REVISIONS_MAX, Fit, Repair, Seals, Target, fit_of, misfit, revised
from ssmd.archive.segment import SegmentFacts
from ssmd.archive.segment_index import build, segment_key_of
from ssmd.archive.storage import ObjectStat, Storage
from ssmd.domain import archive
from ssmd.domain.catalogue import CATALOGUE
from ssmd.errors import Conflict, Malformed, Rejected, Unavailable
from ssmd.services.repair_sources import Source
from ssmd.services.verifier import Finding, Scope, Verification
from ssmd.streams.journal import Journal, PoisonEvent

DAMAGES: Final = frozenset({"missing", "truncated", "longer", "flipped", "swapped"})
"""Findings that a source can mend; manifests are written anew from the journal, extras are nobody's."""
_FITS: Final[dict[Fit, int]] = {"same object": 0, "same content": 1, "same records": 2}


class Repairer(NamedTuple):
    """What repairing needs.

    Attributes:
        sources: asked in this order; one that gives the very object ends the search, else the best is taken.
        spool: a directory for the files being made.
    """

    storage: Storage
    journal: Journal
    application: Application
    sources: Sequence[Source]
    spool: Path
    actor: str

    async def repair(
        self, scope: Scope, found: Verification, *, is_dry: bool, progress: Callable[[str, int, int], None]
    ) -> list[Repair]:
        """Mend the damaged objects that `found` names; what became of each.

        Args:
            is_dry: make the files and compare them, but store and journal nothing.

        Raises:
            Unavailable: journal or storage are away.
            Malformed: the journal cannot be read.
        """
        seals = await self._seals(scope)
        damaged = [finding for finding in found.findings if finding.problem in DAMAGES]
        repairs = []
        for number, finding in enumerate(damaged, 1):
            target = seals.target(finding.key)
            if target is None:
                why = "no seal says of which messages it was made"
                repairs.append(Repair(finding.key, finding.problem, "", "", finding.key, {"seal": why}))
                continue
            repairs.append(await self._mend(target, finding, is_dry=is_dry))
            progress("damaged objects looked after", number, len(damaged))
        for finding in found.findings:
            target = seals.target(segment_key_of(finding.key)) if finding.problem == "sidecar-differs" else None
            if target is not None:
                repairs.append(await self._mend_sidecar(target, finding, is_dry=is_dry))
        if not is_dry:
            await self._close_cases(scope, {finding.key for finding in found.findings})
        return repairs

    async def _seals(self, scope: Scope) -> Seals:
        seals = Seals()
        async for batch in self.journal.replay(filters=[archive.AGGREGATE]):
            for recorded in batch:
                if isinstance(recorded, PoisonEvent):
                    continue  # the verification told it
                parts = recorded.envelope.aggregate_key.parts
                if parts[0] == scope.feed:
                    seals.apply(parts, CATALOGUE.decode(recorded.envelope.type, recorded.envelope.data))
        return seals

    async def _mend(self, target: Target, finding: Finding, *, is_dry: bool) -> Repair:
        if not is_dry:
            damage = archive.RecordDamage(target.file.key, finding.problem, finding.expected_sha256, finding.found_sha256)
            await self._tell(target.file.key, damage)
        tried: dict[str, str] = {}
        best: tuple[int, Source, Path, SegmentFacts, Fit] | None = None
        paths: list[Path] = []
        try:
            for source in self.sources:
                path = self.spool / f"repair-{source.name}"
                paths.append(path)
                try:
                    made = await source.make(target, path)
                except (Rejected, Malformed, Unavailable) as error:
                    tried[source.name] = error.message
                    continue
                fit = fit_of(target, made)
                if not fit:
                    tried[source.name] = misfit(target, made)
                elif best is None or _FITS[fit] < best[0]:
                    best = _FITS[fit], source, path, made, fit
                if fit == "same object":
                    break
            if best is None:
                return Repair(target.file.key, finding.problem, "", "", target.file.key, tried)
            _, source, path, made, fit = best
            key_now = await self._store(target, source, path, made, fit, is_dry=is_dry)
            return Repair(target.file.key, finding.problem, source.name, fit, key_now, tried)
        finally:
            for path in paths:
                path.unlink(missing_ok=True)

    async def _store(self, target: Target, source: Source, path: Path, made: SegmentFacts, fit: Fit, *, is_dry: bool) -> str:
        file = target.file
        if fit == "same object":
            if not is_dry:
                # Somebody may have mended it meanwhile; what is whole is not touched.
                if await self.storage.stat(file.key) != ObjectStat(file.sha256, file.size_bytes):
                    await self.storage.put(file.key, await asyncio.to_thread(path.read_bytes))
                await self._tell(file.key, archive.RecordRepair(file.key, source.name, file.sha256))
            return file.key
        for revision in range(target.name.revision + 1, REVISIONS_MAX):
            fresh = revised(target, made, revision)
            if is_dry:
                return fresh.key
            try:
                await self.storage.put_file(fresh.key, path)
            except Conflict:
                continue  # an earlier try left another one there
            await self._tell(file.key, archive.RecordRepair(file.key, source.name, fresh.sha256, fresh))
            return fresh.key
        raise Conflict(f"{file.key} has {REVISIONS_MAX} revisions that are other files", mend="look at the storage by hand")

    async def _mend_sidecar(self, target: Target, finding: Finding, *, is_dry: bool) -> Repair:
        """A sidecar follows from its segment, and is no fact of its own: nothing is journaled."""
        if not is_dry:
            stored = await self.storage.get(target.file.key)
            data = None if stored is None else build(target.file.kind, target.file.sha256, [stored])
            if data is None:
                await self.storage.delete(finding.key)
            else:
                await self.storage.put(finding.key, data)
        return Repair(finding.key, finding.problem, "its segment", "same object", finding.key, {})

    async def _tell(self, key: str, command: archive.ArchiveCommand) -> None:
        shelf, connection = parse_segment(key).shelf, parse_segment(key).partition
        parts = (shelf.feed, shelf.date, shelf.data_type, connection)
        await self.application.handle(archive.DECIDER, parts, command, actor=self.actor)

    async def _close_cases(self, scope: Scope, still: set[str]) -> None:
        """Objects that are journaled as damaged and were found whole: a run was killed before it said so."""
        open_cases: dict[str, str] = {}
        async for batch in self.journal.replay(filters=[archive.AGGREGATE]):
            for recorded in batch:
                if not isinstance(recorded, PoisonEvent) and recorded.envelope.aggregate_key.parts[0] == scope.feed:
                    _note_case(open_cases, CATALOGUE.decode(recorded.envelope.type, recorded.envelope.data))
        for key, sha256 in open_cases.items():
            if key not in still and scope.has(parse_segment(key).shelf):
                stat = await self.storage.stat(key)
                if stat is not None and stat.sha256 == sha256:
                    await self._tell(key, archive.RecordRepair(key, "found whole", sha256))


def _note_case(open_cases: dict[str, str], event: object) -> None:
    match event:
        case archive.Damaged(key=key, expected_sha256=sha256):
            open_cases[key] = sha256
        case archive.Repaired(key=key):
            open_cases.pop(key, None)
        case archive.Pruned(keys=keys):
            for key in keys:
                open_cases.pop(key, None)
        case _:
            pass


async def journal_verified(application: Application, journal: Journal, scope: Scope, found: Verification, actor: str) -> int:
    """Journal each partition of the scope that is wholly as sealed; how many events that took.

    The check's name follows from what was found, so that an unchanged archive is told once.
    """
    partitions: dict[tuple[str, ...], dict[str, archive.SegmentFile]] = {}
    async for batch in journal.replay(until=found.position, filters=[archive.AGGREGATE]):
        for recorded in batch:
            if isinstance(recorded, PoisonEvent):
                continue
            parts = recorded.envelope.aggregate_key.parts
            if parts[0] != scope.feed or scope.date not in {"", parts[1]}:
                continue
            _held(partitions.setdefault(parts, {}), CATALOGUE.decode(recorded.envelope.type, recorded.envelope.data))
    bad = {finding.key for finding in found.findings}
    written = 0
    for parts, files in partitions.items():
        if not files or bad & files.keys():
            continue
        check = hashlib.sha256("\n".join(f"{key} {file.sha256}" for key, file in sorted(files.items())).encode()).hexdigest()
        size_bytes = sum(file.size_bytes for file in files.values())
        try:
            command = archive.RecordVerification(check, len(files), size_bytes)
            written += len((await application.handle(archive.DECIDER, parts, command, actor=actor)).events)
        except Rejected as error:
            if error.rule != "archive-damaged":
                raise
    return written


def _held(files: dict[str, archive.SegmentFile], event: object) -> None:
    match event:
        case archive.SegmentSealed(files=fresh) | archive.Renormalized(files=fresh):
            files.update({file.key: file for file in fresh})
        case archive.Repaired(key=key, file=file) if file is not None:
            files.pop(key, None)
            files[file.key] = file
        case archive.Pruned(keys=keys):
            for key in keys:
                files.pop(key, None)
        case _:
            pass
