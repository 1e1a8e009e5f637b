"""Seeded mutations of the shipped files: none crashes, and those that break a known rule are found in the right line."""

import random
import re
from pathlib import Path

import pytest

from ssmd.registry.findings import Finding
from ssmd.registry.loader import check_tree
from ssmd.registry.tree import Tree, read_tree

REPOSITORY = Path(__file__).parents[2]
DATE = "2026-11-22"
FILES = ("environments/kalshi-dev.yaml", "environments/kalshi-prod.yaml", "feeds/kalshi.yaml", "schemas/market.yaml")
MUTATIONS = 500


@pytest.fixture(scope="module")
def shipped() -> Tree:
    return read_tree(REPOSITORY / "exchanges")


def check_with(shipped: Tree, file: str, payload: bytes) -> list[Finding]:
    return check_tree(shipped.with_changes({file: payload}), date=DATE)[1]


def mutated(rng: random.Random, payload: bytes) -> bytes:
    """One to three random edits of bytes and lines."""
    for _ in range(rng.randint(1, 3)):
        lines = payload.split(b"\n")
        number = rng.randrange(len(lines))
        place = rng.randrange(len(payload) + 1)
        match rng.randrange(8):
            case 0:
                payload = payload[:place] + bytes([rng.randrange(256)]) + payload[place:]
            case 1:
                payload = payload[:place] + payload[place + rng.randint(1, 9) :]
            case 2:
                lines.insert(number, lines[rng.randrange(len(lines))])
                payload = b"\n".join(lines)
            case 3:
                lines[number] = rng.choice([b" ", b"\t", b"   "]) + lines[number]
                payload = b"\n".join(lines)
            case 4:
                lines[number] = lines[number].lstrip()
                payload = b"\n".join(lines)
            case 5:
                payload = payload[:place] + rng.choice(
                    [b"{", b"]", b"&a ", b"*a", b"!!x ", b'"', b"'", b"|", b">", b"%", b"@", b": "]
                )
                payload += b"\n".join(lines)[place:]
            case 6:
                del lines[number]
                payload = b"\n".join(lines)
            case _:
                head, colon, _ = lines[number].partition(b":")
                lines[number] = (
                    head + colon + rng.choice([b" 1e999", b" null", b" ~", b" [", b" 99999999999999999999", b" 3:00", b" -0"])
                )
                payload = b"\n".join(lines)
    return payload


def test_no_mutation_crashes_and_every_finding_has_a_real_place(shipped: Tree) -> None:
    rng = random.Random(20261122)
    for number in range(MUTATIONS):
        file = rng.choice(FILES)
        payload = mutated(rng, shipped.files[file])
        lines = payload.count(b"\n") + 2
        for finding in check_with(shipped, file, payload):
            assert finding.message, (number, finding)
            if finding.file == f"exchanges/{file}":
                assert 0 <= finding.line <= lines, (number, finding)
                assert (finding.line == 0) == (finding.column == 0), (number, finding)


KEY_LINE = re.compile(r"^(?P<indent> *)(?P<dash>- )?(?P<key>[a-z_]+):(?: (?P<value>.+))?$")
FREE_NAMES = {"kalshi", "prod", "demo", "simulator"}
"""Keys of mappings whose names are free: another name breaks nothing in that line."""
DATES = ("2026-13-01", "2026-02-30", "12.03.2026", "yesterday", "2026-3-1", "20260312", "2026-03-12T00:00:00Z")
REFERENCES = {
    "feed": ("kalsi", "nothing"),
    "schema": ("market:9", "markt:1", "market", "market:one"),
    "endpoint": ("simulater", "nowhere"),
    "key": ("$key:nobody", "$key:kalshi.api_key", "a-secret", "$key:"),
    "definition": ("nothing.capnp", "../market.capnp"),
    "sha256": ("0" * 64, "xyz"),
    "timezone": ("America/NewYork", "Mars"),
}


def broken(rng: random.Random, kind: str, lines: list[str]) -> tuple[list[str], int] | None:  # noqa: C901 - one case per kind
    """`lines` with one rule broken, and the number (from 1) of the line at fault; None = not there in the line drawn."""
    index = rng.randrange(len(lines))
    found = KEY_LINE.match(lines[index])
    if found is None:
        return None
    indent, dash, key, value = found["indent"], found["dash"] or "", found["key"], found["value"]
    edited = list(lines)
    match kind:
        case "type":
            if value is None:
                return None
            edited[index] = f"{indent}{dash}{key}: {rng.choice(['{a: b}', '[[x]]', '[{a: b}]'])}"
        case "key":
            if rng.random() < 0.5:
                if key in FREE_NAMES:
                    return None
                edited[index] = f"{indent}{dash}{key}xq:{'' if value is None else f' {value}'}"
            else:
                if value is None or dash:
                    return None
                edited.insert(index + 1, lines[index])
                return edited, index + 2
        case "date":
            if not key.startswith("effective_"):
                return None
            edited[index] = f"{indent}{dash}{key}: {rng.choice(DATES)}"
        case "reference":
            if key not in REFERENCES or value is None:
                return None
            edited[index] = f"{indent}{dash}{key}: {rng.choice(REFERENCES[key])}"
        case _:
            if not indent or dash:
                return None
            # One level is two spaces: a tab, or half a level, lines up with nothing around it.
            edited[index] = rng.choice(["\t", " " + indent, indent[:-1]]) + lines[index].lstrip()
            if value is None and "\t" not in edited[index]:
                return None  # the only key of a section may stand anywhere before what is in it
    return edited, index + 1


KINDS = ("type", "key", "date", "reference", "indentation")


def test_500_broken_rules_are_each_found_in_the_right_file_and_line(shipped: Tree) -> None:
    rng = random.Random(7)
    caught = 0
    while caught < MUTATIONS:
        kind, file = KINDS[caught % len(KINDS)], rng.choice(FILES)
        case = broken(rng, kind, shipped.files[file].decode().split("\n"))
        if case is None:
            continue
        lines, number = case
        found = check_with(shipped, file, "\n".join(lines).encode())
        here = [finding.line for finding in found if finding.file == f"exchanges/{file}"]
        # A line that lines up with nothing may show in the next one only.
        wanted = {number, number + 1} if kind == "indentation" else {number}
        assert wanted & set(here), (kind, file, number, lines[number - 1], found)
        caught += 1
