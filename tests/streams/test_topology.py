"""Stream definitions on real servers: applying is complete, repeatable and reported."""

from __future__ import annotations

from collections.abc import AsyncIterator

import msgspec
import pytest

from ssmd.errors import Misconfigured
from ssmd.streams.connection import Connection
from ssmd.streams.topology import Connections, Difference, StreamStatus, apply, desired, diff, status

HOUR_NS = 3600 * 1_000_000_000


@pytest.fixture
async def connections(journal_url: str, transport_url: str) -> AsyncIterator[Connections]:
    journal = await Connection.open(journal_url, name="test", timeout_s=30)
    transport = await Connection.open(transport_url, name="test", timeout_s=30)
    yield {"journal": journal, "transport": transport}
    await journal.close()
    await transport.close()


def test_the_four_streams_share_the_bound_and_cover_the_subject_grammar() -> None:
    definitions = desired("dev", max_age_s=3600, max_bytes=10 << 20)
    assert [(one.name, one.endpoint, one.subjects, one.max_age_ns, one.max_bytes, one.discard) for one in definitions] == [
        ("dev-raw", "transport", ("dev.raw.>",), HOUR_NS, 5 << 20, "old"),
        ("dev-market", "transport", ("dev.md.>",), HOUR_NS, 5 << 20, "old"),
        ("dev-dlq", "transport", ("dev.dlq.>",), 30 * 24 * HOUR_NS, 256 << 20, "old"),
        ("dev-journal", "journal", ("dev.journal.>",), 0, -1, "new"),
    ]
    journal = definitions[-1]
    assert (journal.allow_atomic, journal.deny_delete, journal.deny_purge) == (True, True, True)


async def test_apply_creates_what_is_missing_and_then_changes_nothing(connections: Connections, fresh_env: str) -> None:
    definitions = desired(fresh_env, max_age_s=3600, max_bytes=10 << 20)
    names = [one.name for one in definitions]
    assert await status(connections, definitions) == [StreamStatus(one.name, one.endpoint, exists=False) for one in definitions]
    assert await apply(connections, definitions) == [Difference(name, "", "missing", "present") for name in names]
    assert await diff(connections, definitions) == []
    assert await apply(connections, definitions) == []
    assert await status(connections, definitions) == [
        StreamStatus(one.name, one.endpoint, exists=True, replicas=1) for one in definitions
    ]


async def test_a_changed_limit_is_one_difference_and_is_mended(connections: Connections, fresh_env: str) -> None:
    await apply(connections, desired(fresh_env, max_age_s=3600, max_bytes=10 << 20))
    wanted = desired(fresh_env, max_age_s=7200, max_bytes=10 << 20)
    expected = [Difference(f"{fresh_env}-{role}", "max_age", str(HOUR_NS), str(2 * HOUR_NS)) for role in ("raw", "market")]
    assert await diff(connections, wanted) == expected
    assert await apply(connections, wanted) == expected
    assert await diff(connections, wanted) == []


async def test_protection_of_the_journal_cannot_be_taken_back(connections: Connections, fresh_env: str) -> None:
    journal = desired(fresh_env, max_age_s=3600, max_bytes=10 << 20)[-1]
    await apply(connections, [journal])
    with pytest.raises(Misconfigured, match=f"{fresh_env}-journal .* cannot be brought to its definition"):
        await apply(connections, [msgspec.structs.replace(journal, deny_purge=False)])
    assert await diff(connections, [journal]) == []
