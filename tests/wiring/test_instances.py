from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from ssmd.errors import Misconfigured, Rejected
from ssmd.wiring.instances import claim_archiver, refuse_second_connector


class Answering:
    """Instances that answer elsewhere; `asked` is who was asked for."""

    def __init__(self, *names: str) -> None:
        self.names = names
        self.asked: list[str] = []

    async def __call__(self, instance: str) -> bool:
        self.asked.append(instance)
        return instance in self.names


async def test_the_first_free_name_is_taken_with_its_spool(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        claims = [await claim_archiver("raw-archiver", "", tmp_path, None, stack) for _ in range(3)]
        other = await claim_archiver("normalized-archiver", "", tmp_path, None, stack)
    assert claims == [
        ("main", tmp_path / "raw-archiver"),
        ("main-2", tmp_path / "raw-archiver-main-2"),
        ("main-3", tmp_path / "raw-archiver-main-3"),
    ]
    assert other == ("main", tmp_path / "normalized-archiver")


async def test_a_name_is_free_again_when_its_process_let_go(tmp_path: Path) -> None:
    for _ in range(2):
        async with AsyncExitStack() as stack:
            assert (await claim_archiver("raw-archiver", "", tmp_path, None, stack))[0] == "main"


async def test_a_name_that_answers_on_another_machine_is_not_taken(tmp_path: Path) -> None:
    answering = Answering("main", "main-2")
    async with AsyncExitStack() as stack:
        assert await claim_archiver("raw-archiver", "", tmp_path, answering, stack) == (
            "main-3",
            tmp_path / "raw-archiver-main-3",
        )
        assert answering.asked == ["main", "main-2", "main-3"]
        # What was tried and left is free for others.
        assert (await claim_archiver("raw-archiver", "main", tmp_path, None, stack))[0] == "main"


async def test_a_name_asked_for_is_taken_or_refused(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        assert (await claim_archiver("raw-archiver", "b", tmp_path, None, stack)) == ("b", tmp_path / "raw-archiver-b")
        with pytest.raises(Misconfigured, match=r"raw-archiver 'b' runs on this machine already: it holds .*-b\.lock") as found:
            await claim_archiver("raw-archiver", "b", tmp_path, None, stack)
        assert "SSMD_INSTANCE=b-b" in found.value.mend
        with pytest.raises(Misconfigured, match="raw-archiver 'c' runs already: it answers on the transport server"):
            await claim_archiver("raw-archiver", "c", tmp_path, Answering("c"), stack)


async def test_a_spool_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    async with AsyncExitStack() as stack:
        with pytest.raises(Misconfigured, match=r"cannot write .*raw-archiver\.lock"):
            await claim_archiver("raw-archiver", "", tmp_path / "file", None, stack)


async def test_a_connector_begins_only_where_none_of_its_connection_answers() -> None:
    await refuse_second_connector("kalshi", "main", None)
    await refuse_second_connector("kalshi", "main", Answering("other"))
    with pytest.raises(Rejected, match="connection main of kalshi is captured already") as found:
        await refuse_second_connector("kalshi", "main", Answering("main"))
    assert found.value.rule == "capture-taken"
