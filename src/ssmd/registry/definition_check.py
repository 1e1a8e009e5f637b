"""Definitions of records: read in a process of their own, and compared.

pycapnp's compiler aborts its process for some mistakes, so a definition from outside is never read in ours.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from ssmd.errors import Malformed, Unavailable
from ssmd.registry.findings import Finding, did_you_mean
from ssmd.registry.sources import read_sources
from ssmd.registry.tree import Tree
from ssmd.schemas.definitions import Comparison, Definition, compare, read_definition

READ_TIMEOUT_S: Final = 30.0
_LIST: Final = msgspec.json.Decoder(list[Definition | str])
_PLACE: Final = re.compile(r"([^/\s]+\.capnp):(\d+)(?::[\d-]+)?: (error: |failed: )?(.+)")
_FILE: Final = "definition.capnp"


def read_definitions(payloads: Sequence[bytes]) -> list[Definition]:
    """The definitions whose files hold `payloads`.

    Raises:
        Malformed: one of them is none; with the line.
        Unavailable: the compiler did not end in time.
    """
    with tempfile.TemporaryDirectory(prefix="ssmd-definition-") as directory:
        paths = []
        for number, payload in enumerate(payloads):
            path = Path(directory) / str(number) / _FILE  # the file's name is part of what the compiler says
            path.parent.mkdir()
            path.write_bytes(payload)
            paths.append(str(path))
        try:
            done = subprocess.run(  # noqa: S603 - our own interpreter and module
                [sys.executable, "-P", "-m", "ssmd.registry.definition_check", *paths],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=READ_TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise Unavailable(f"the compiler of definitions did not end within {READ_TIMEOUT_S:g} s") from None
    if done.returncode != 0:
        raise Malformed(f"not a Cap'n Proto definition: {_words(done.stderr.decode(errors='replace'))}")
    return [_checked(one) for one in _LIST.decode(done.stdout)]


def compare_definitions(old: bytes, new: bytes) -> Comparison:
    """What the step from one definition file to another does to readers. Raises as `read_definitions`."""
    return compare(*read_definitions([old, new]))


def definition_findings(tree: Tree) -> list[Finding]:
    """What is wrong with the definitions themselves, and with what schemas say of their compatibility. Slow: a compiler runs.

    Raises:
        Unavailable: it did not end in time.
    """
    findings: list[Finding] = []
    for source in read_sources(tree.only("schemas"))[0].schemas.values():
        payloads = {
            version.version: payload
            for version in source.document.versions
            if (payload := tree.files.get(f"schemas/{version.definition}")) is not None
        }
        for index, version in enumerate(source.document.versions):
            at: tuple[str | int, ...] = ("versions", index)
            older = [number for number in version.compatible_with if number in payloads]
            if version.version not in payloads:
                continue  # reported as missing
            try:
                newest, *read = read_definitions([payloads[version.version], *(payloads[number] for number in older)])
            except Malformed as error:
                findings.append(source.finding((*at, "definition"), "bad-definition", f"{version.definition}: {error.message}"))
                continue
            if source.document.root not in newest.structs:
                message = f'{version.definition} has no struct "{source.document.root}"'
                findings.append(
                    source.finding(("root",), "no-root", message, did_you_mean(source.document.root, newest.structs))
                )
            for number, old in zip(older, read, strict=True):
                breaks = compare(old, newest).breaks
                if breaks:
                    place = version.compatible_with.index(number)
                    message = f"version {version.version} is not compatible with {number}: {'; '.join(breaks)}"
                    mend = f"take {number} out of compatible_with"
                    findings.append(source.finding((*at, "compatible_with", place), "not-compatible", message, mend))
    return findings


def _checked(found: Definition | str) -> Definition:
    if isinstance(found, str):
        raise Malformed(f"not a Cap'n Proto definition: {_words(found)}")
    return found


def _words(text: str) -> str:
    """The compiler's complaint without the places of this machine."""
    places = _PLACE.findall(text)
    if places:
        # What "failed" counts its lines from 0.
        lines = (f"line {int(line) + (how == 'failed: ')}: {words.strip()}" for _, line, how, words in places)
        return "; ".join(dict.fromkeys(lines))
    told = [line.strip() for line in text.splitlines() if line.strip()]
    return told[-1][:200] if told else "the compiler failed without a word"


def _read_one(path: str) -> Definition | str:
    try:
        return read_definition(path)
    except Malformed as error:
        return error.message


if __name__ == "__main__":
    sys.stdout.buffer.write(msgspec.json.encode([_read_one(path) for path in sys.argv[1:]]))
