"""Letters that are still under way, kept beside the tape, so that a kill loses none:

    {tape}/letters.jsonl   one `Waiting` a line, in the order they came; gone when all have arrived

Written before a letter is sent, never fsynced: what a power failure takes of it, it takes of the tape, too. A file that
cannot be written is told once and is in nobody's way.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import msgspec

from ssmd.services.connector.frame_letter import Unmapped

FILE_NAME: Final = "letters.jsonl"
FILE_BYTES_MAX: Final = 32 << 20
"""A larger file is written anew with what waits still; not again before half as much has come."""


class Waiting(msgspec.Struct, frozen=True, omit_defaults=True):
    """A letter, and where it has not arrived yet."""

    letter: Unmapped
    to_stream: bool = False
    to_journal: bool = False


class LetterSpool:
    """See the module. One process; the directory is the locked one of the tape."""

    def __init__(self, directory: Path, log: Any) -> None:
        self._path = directory / FILE_NAME
        self._log = log
        self._size_bytes = 0
        self._kept_bytes = 0
        # The file ends within a line: a kill or a full disk cut it.
        self._is_torn = False
        self._is_told = False

    def load(self) -> list[Waiting]:
        """What waited when the process before this one ended; a torn last line is left out."""
        try:
            data = self._path.read_bytes()
        except FileNotFoundError:
            return []
        except OSError as error:
            self._tell(error)
            return []
        self._size_bytes = len(data)
        self._is_torn = bool(data) and not data.endswith(b"\n")
        found = []
        for line in data.splitlines():
            try:
                found.append(msgspec.json.decode(line, type=Waiting))
            except msgspec.DecodeError:
                continue  # torn, or of another version
        return found

    def add(self, one: Waiting) -> bool:
        """Keep one; whether the file has grown so long that it should be written anew (`replace`)."""
        line = b"\n" * self._is_torn + msgspec.json.encode(one) + b"\n"
        try:
            with self._path.open("ab", buffering=0) as file:
                written = file.write(line)
                self._is_torn = written != len(line)
                if self._is_torn:
                    self._tell(OSError(f"only {written} of {len(line)} bytes were written"))
        except OSError as error:
            self._tell(error)
        self._size_bytes += len(line)
        return self._size_bytes > max(FILE_BYTES_MAX, self._kept_bytes + FILE_BYTES_MAX // 2)

    def replace(self, waiting: Iterable[Waiting]) -> None:
        """Keep these and no others."""
        data = b"".join(msgspec.json.encode(one) + b"\n" for one in waiting)
        fresh = self._path.with_suffix(".new")
        try:
            if data:
                fresh.write_bytes(data)
                fresh.replace(self._path)
            elif self._size_bytes:
                self._path.unlink(missing_ok=True)
            self._is_torn = False
        except OSError as error:
            self._tell(error)
        self._size_bytes = self._kept_bytes = len(data)

    def _tell(self, error: OSError) -> None:
        if not self._is_told:
            self._log.warning("letters-not-kept", path=str(self._path), reason=str(error))
        self._is_told = True
