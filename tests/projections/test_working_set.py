"""Added rows: asked for, written over and undone within one batch, as any other row."""

import msgspec

from ssmd.projections.projection import EMPTY_DIGEST, digest_text, row_digest
from ssmd.projections.store import Changes, Stamp
from ssmd.projections.working_set import WorkingSet, encode_row

STAMP = Stamp("rows", "g", 1, 0, digest_text(EMPTY_DIGEST), 0, 0)


class Row(msgspec.Struct, frozen=True):
    value: int


def changes_of(rows: WorkingSet) -> tuple[dict[str, bytes], list[str], list[str], str]:
    changes: Changes = rows.changes(STAMP, 1, 0)
    return dict(changes.puts), sorted(changes.added), list(changes.removed), changes.digest


def holding(**rows: int) -> tuple[dict[str, bytes], list[str], list[str], str]:
    values = {key: encode_row(Row(value)) for key, value in rows.items()}
    return values, sorted(rows), [], digest_text(sum(row_digest(key, value) for key, value in values.items()) % (1 << 256))


def test_an_added_row_is_there_for_later_folds_of_the_batch() -> None:
    rows = WorkingSet(STAMP)
    rows.add("a", Row(1))
    rows.keep()
    assert rows.get("a", Row) == Row(1)
    rows.put("a", Row(2))
    rows.add("b", Row(3))
    rows.keep()
    assert changes_of(rows) == holding(a=2, b=3)


def test_a_discarded_event_leaves_neither_its_added_rows_nor_what_it_did_to_those_before() -> None:
    rows = WorkingSet(STAMP)
    rows.add("a", Row(1))
    rows.keep()
    rows.put("a", Row(2))
    rows.add("b", Row(3))
    rows.put("b", Row(4))
    rows.add("c", Row(5))
    rows.delete("a")
    rows.discard()
    assert (rows.get("a", Row), rows.get("b", Row), rows.get("c", Row)) == (Row(1), None, None)
    assert changes_of(rows) == holding(a=1)


def test_an_added_row_deleted_within_the_batch_never_was() -> None:
    rows = WorkingSet(STAMP)
    rows.add("a", Row(1))
    rows.keep()
    rows.delete("a")
    rows.keep()
    rows.add("b", Row(2))
    rows.keep()
    assert changes_of(rows) == holding(b=2)
