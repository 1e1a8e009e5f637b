"""Seeded mutations of the shipped files: none crashes, and those that break a known rule are found in the right line."""

import random
import shutil
from pathlib import Path

import pytest

from ssmd.registry.findings import Finding
from ssmd.registry.loader import check_registry

REPOSITORY = Path(__file__).parents[2]
DATE = "2026-11-22"
FILES = ("environments/kalshi-dev.yaml", "environments/kalshi-prod.yaml", "feeds/kalshi.yaml", "schemas/market.yaml")
MUTATIONS = 500


@pytest.fixture(scope="module")
def exchanges(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(REPOSITORY / "exchanges", tmp_path_factory.mktemp("mutations") / "exchanges"))


def check_with(exchanges: Path, file: str, payload: bytes) -> list[Finding]:
    path = exchanges / file
    genuine = path.read_bytes()
    path.write_bytes(payload)
    try:
        return check_registry(exchanges, date=DATE)[1]
    finally:
        path.write_bytes(genuine)


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


def test_no_mutation_crashes_and_every_finding_has_a_real_place(exchanges: Path) -> None:
    rng = random.Random(20261122)
    for number in range(MUTATIONS):
        file = rng.choice(FILES)
        payload = mutated(rng, (exchanges / file).read_bytes())
        lines = payload.count(b"\n") + 2
        for finding in check_with(exchanges, file, payload):
            assert finding.message, (number, finding)
            if finding.file == f"exchanges/{file}":
                assert 0 <= finding.line <= lines, (number, finding)
                assert (finding.line == 0) == (finding.column == 0), (number, finding)


def breakages(rng: random.Random, lines: list[str]) -> tuple[list[str], int] | None:
    """Break one rule at a random line; the edited lines and the number (from 1) of the line at fault, None = not this line."""
    index = rng.randrange(len(lines))
    line = lines[index]
    indent = line[: len(line) - len(line.lstrip())]
    if not line.strip() or line.strip().startswith(("#", "-")) or ":" not in line:
        return None
    key, _, value = line.partition(":")
    value = value.strip()
    edited = list(lines)
    match rng.randrange(4):
        case 0:
            if len(indent) > 2 and "kalshi" not in key and key.strip() in {"prod", "demo", "simulator"}:
                return None
            if key.strip() in {"prod", "demo", "simulator", "kalshi"}:
                return None  # free names
            edited[index] = f"{key}xq:{line.partition(':')[2]}"
        case 1:
            if not value:
                return None
            edited.insert(index + 1, f"{line}")
            return edited, index + 2
        case 2:
            if not value:
                return None
            edited[index] = f"{key}: {{a: b}}"
        case _:
            edited[index] = f"\t{line.lstrip()}"
            if not indent:
                return None
    return edited, index + 1


def test_every_broken_rule_is_found_in_its_line(exchanges: Path) -> None:
    rng = random.Random(7)
    broken = 0
    while broken < MUTATIONS:
        file = rng.choice(FILES)
        case = breakages(rng, (exchanges / file).read_text().split("\n"))
        if case is None:
            continue
        broken += 1
        lines, number = case
        found = check_with(exchanges, file, "\n".join(lines).encode())
        assert number in [finding.line for finding in found if finding.file == f"exchanges/{file}"], (
            broken,
            lines[number - 1],
            found,
        )
