"""What `ssmd backup` does: an environment into a backup, and a backup into an environment that is empty."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from ssmd import __version__
from ssmd.clock import Clock, date_of
from ssmd.errors import Misconfigured, Rejected, SsmdError, Unavailable
from ssmd.keys.private_files import inside, write_private
from ssmd.registry.git import Git
from ssmd.services import backup as procedures
from ssmd.services.backup_format import BUNDLE, Backup, KeyToSet
from ssmd.services.restoring import Restored, restore_journal
from ssmd.settings import Workspace
from ssmd.wiring.backends import open_storage, reading_journal
from ssmd.wiring.environment import ResolvedEnvironment, resolve_environment
from ssmd.wiring.journal_tools import writing_journal

if TYPE_CHECKING:
    from ssmd.archive.storage import Storage

Say = Callable[[str], None]
OWN_STORAGE: Final = "storage"
S3_SCHEME: Final = "s3://"
_MARK: Final = "restoring"


@asynccontextmanager
async def opened_place(
    place: str, environment: ResolvedEnvironment | None, variables: Mapping[str, str]
) -> AsyncIterator[Storage]:
    """Where backups are: "storage" (the environment's own), s3://BUCKET/PREFIX, or a directory.

    A bucket is opened with AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_ENDPOINT_URL and AWS_REGION.

    Raises:
        Misconfigured: no environment, bucket or credentials.
    """
    if place == OWN_STORAGE:
        if environment is None:
            raise Misconfigured("which storage? No environment is known here", mend="--from DIR, or s3://BUCKET/PREFIX")
        storage = open_storage(environment, variables)
    elif place.startswith(S3_SCHEME):
        storage = _bucket(place, variables)
    else:
        from ssmd.archive.storage_local import LocalStorage  # noqa: PLC0415 - see wiring.backends

        storage = LocalStorage(Path(place))
    try:
        yield storage
    finally:
        await storage.close()


def _bucket(place: str, variables: Mapping[str, str]) -> Storage:
    from ssmd.archive.storage_s3 import S3Access, S3Storage  # noqa: PLC0415 - see wiring.backends

    bucket, _, prefix = place.removeprefix(S3_SCHEME).partition("/")
    missing = [name for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY") if not variables.get(name)]
    if missing or not bucket:
        found = f"{' and '.join(missing)} not set" if missing else "no bucket is named"
        raise Misconfigured(f"{place} cannot be opened: {found}", mend="export AWS_ACCESS_KEY_ID=... AWS_SECRET_ACCESS_KEY=...")
    access = S3Access(
        bucket,
        variables["AWS_ACCESS_KEY_ID"],
        variables["AWS_SECRET_ACCESS_KEY"],
        variables.get("AWS_ENDPOINT_URL", ""),
        variables.get("AWS_REGION") or "us-east-1",
        f"{prefix.strip('/')}/" if prefix.strip("/") else "",
    )
    return S3Storage(access)


async def create_backup(
    environment: ResolvedEnvironment, variables: Mapping[str, str], clock: Clock, place: str, say: Say
) -> Backup:
    """Back an environment up, whether it runs or not. Raises as `services.backup.create`."""
    root = environment.workspace.root
    git = Git(root, environment.workspace.registry.name)
    with tempfile.TemporaryDirectory(prefix="ssmd-backup-") as drafts:
        directory = Path(drafts) / "files"
        directory.mkdir()
        bundle = Path(drafts) / BUNDLE if environment.config else None
        if bundle is not None:
            try:
                git.bundle(bundle)
            except (Misconfigured, Unavailable) as error:
                say(f"without git's history: {error.message}")
                bundle = None
        origin = procedures.Origin(
            env=environment.name,
            registry=environment.workspace.registry,
            config=environment.config,
            git_prefix=git.prefix() if bundle is not None else "",
            bundle=bundle,
            keys=tuple(
                KeyToSet(name, key.source, tuple(key.fields))
                for name, key in environment.document.keys.items()
                if key.source != "generated"
            ),
            ssmd=__version__,
        )
        archive = open_storage(environment, variables)
        try:
            async with (
                opened_place(place, environment, variables) as target,
                reading_journal(environment, variables, say) as journal,
            ):
                return await procedures.create(origin, journal, archive, target, directory, clock.now_ns())
        finally:
            await archive.close()


async def list_backups(
    environment: ResolvedEnvironment | None, variables: Mapping[str, str], place: str, env: str = ""
) -> list[Backup]:
    """What backups there are. Raises as `opened_place`, `services.backup.listed`."""
    async with opened_place(place, environment, variables) as source:
        return await procedures.listed(source, env)


async def verify_backup(
    environment: ResolvedEnvironment | None, variables: Mapping[str, str], place: str, env: str = "", identity: str = ""
) -> Backup:
    """Read one backup whole and check it against itself. Raises Malformed, and as `services.backup.chosen`."""
    async with opened_place(place, environment, variables) as source:
        backup = await procedures.chosen(source, place, env=env, identity=identity)
        with tempfile.TemporaryDirectory(prefix="ssmd-backup-") as directory:
            await procedures.fetch(source, backup, Path(directory))
            procedures.registry_files(Path(directory))
            procedures.stored_objects(Path(directory))
        return backup


async def restore_backup(
    variables: Mapping[str, str],
    clock: Clock,
    place: str,
    say: Say,
    *,
    here: Workspace,
    env: str = "",
    identity: str = "",
    into: Path | None = None,
    dry_run: bool = False,
) -> Restored:
    """Bring a backup back: into the empty directory `into`, or into the workspace `here`, whose registry stays as it is.

    Raises:
        Malformed: the backup is damaged; nothing was written.
        Rejected: the directory or the journal is not empty, or the environment runs; nothing was written.
        Misconfigured: a key is missing; once it is set the same command goes on.
    """
    today = date_of(clock.now_ns())
    environment = resolve_environment(here, env, today) if place == OWN_STORAGE and env else None
    async with opened_place(place, environment, variables) as source:
        backup = await procedures.chosen(source, place, env=env, identity=identity)
        with tempfile.TemporaryDirectory(prefix="ssmd-restore-") as name:
            directory = Path(name)
            await procedures.fetch(source, backup, directory)
            files = procedures.registry_files(directory)
            if into is not None:
                _check_empty(into, backup)
            if dry_run:
                notes = await _dry_notes(here, backup, files, variables, today, say) if into is None else ()
                return Restored(
                    id=backup.id, env=backup.env, workspace="", messages=backup.messages, objects=backup.objects,
                    notes=notes, keys=backup.keys,
                )  # fmt: skip
            workspace = here if into is None else _write_workspace(into, backup, directory, files, say)
            restored = await _restore(workspace, backup, directory, variables, today, say)
    if into is not None:
        (into / ".ssmd" / _MARK).unlink(missing_ok=True)
        return restored
    return msgspec.structs.replace(restored, notes=restored.notes + _registry_notes(here, files))


def _check_empty(into: Path, backup: Backup) -> None:
    """Raise Rejected unless `into` is empty or absent, or an interrupted restore of the same backup."""
    if into.is_symlink() or (into.exists() and not into.is_dir()):
        raise Rejected("not-empty", f"{into} is no directory", mend="--into a new directory")
    mark = into / ".ssmd" / _MARK
    if mark.is_file() and mark.read_text(encoding="utf-8") == backup.id:
        return
    if into.is_dir() and any(into.iterdir()):
        raise Rejected("not-empty", f"{into} is not empty; nothing was written", mend="--into a new directory")


def _write_workspace(into: Path, backup: Backup, directory: Path, files: Mapping[str, bytes], say: Say) -> Workspace:
    into.mkdir(parents=True, exist_ok=True)
    root = into
    if (directory / BUNDLE).is_file() and not (into / ".ssmd" / _MARK).is_file():
        try:
            Git(into).unbundle(directory / BUNDLE)
        except (Misconfigured, Unavailable) as error:
            say(f"git's history was not restored: {error.message}")
    if backup.git_prefix and (into / ".git").is_dir():
        root = inside(into, backup.git_prefix, "git_prefix of the backup")
    write_private(into / ".ssmd" / _MARK, backup.id.encode())
    for path, payload in files.items():
        write_private(inside(root, path, f"a file of backup {backup.id}"), payload, mode=0o644)
    return Workspace(root.absolute())


async def _restore(
    workspace: Workspace, backup: Backup, directory: Path, variables: Mapping[str, str], today: str, say: Say
) -> Restored:
    environment = resolve_environment(workspace, backup.env, today)
    if environment.document.journal.backend == "memory":
        raise Rejected("journal-in-memory", f"the journal of {environment.name} is kept in memory: nothing can be restored")
    if environment.run is not None:
        raise Rejected("runs", f"{environment.name} runs: its journal would change meanwhile", mend="stop ssmd up first")
    archive = open_storage(environment, variables)
    try:
        async with writing_journal(environment, variables, say) as journal:
            return await restore_journal(backup, directory, journal, archive, workspace.root)
    finally:
        await archive.close()


async def _dry_notes(
    here: Workspace, backup: Backup, files: Mapping[str, bytes], variables: Mapping[str, str], today: str, say: Say
) -> tuple[str, ...]:
    """What would stand in the way in the workspace."""
    notes = list(_registry_notes(here, files))
    try:
        async with reading_journal(resolve_environment(here, backup.env, today), variables, say) as journal:
            head = await journal.head()
        if head:
            notes.append(f"the journal holds {head} messages: it would be refused unless they begin the backup")
    except Unavailable:
        pass  # no journal yet: as it should be
    except SsmdError as error:
        notes.append(error.message)
    return tuple(notes)


def _registry_notes(here: Workspace, files: Mapping[str, bytes]) -> tuple[str, ...]:
    different = []
    for path, payload in files.items():
        file = here.root / path
        if not file.is_file() or file.read_bytes() != payload:
            different.append(path)
    return tuple(f"the registry here differs from the backup's: {path}" for path in different[:20])
