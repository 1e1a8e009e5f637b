"""parse(render(document)) == document, for documents of every shape their types allow."""

from __future__ import annotations

import datetime as dt
from typing import Any, TypeVar

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import inspect

from ssmd.registry import conversion, documents
from ssmd.registry.documents import EnvironmentDocument, FeedDocument, SchemaDocument
from ssmd.registry.rendering import render, scalar
from ssmd.registry.yaml_nodes import read_yaml

Document = TypeVar("Document", bound=msgspec.Struct)
TEXT = st.one_of(
    st.text(max_size=20),
    st.sampled_from(
        ["yes", "null", "~", "3:00", "1e3", "0x1f", "2026-01-01", "a: b", "a #b", "- a", "", " ", "$key:a.b", "*", "="]
    ),
)
NAME = st.from_regex(documents.NAME_FORM, fullmatch=True)
DATE = st.dates().map(dt.date.isoformat)
KEYS = st.dictionaries(TEXT, st.just(None), max_size=3)

st.register_type_strategy(str, TEXT)


def documents_of(kind: type[Document]) -> st.SearchStrategy[Document]:
    """Any document that the type allows."""
    return st.builds(kind, **{field.encode_name: _values(field.type) for field in msgspec.structs.fields(kind)})


def _values(kind: Any) -> st.SearchStrategy[Any]:
    info = msgspec.inspect.type_info(kind)
    return _of(info)


def _of(info: Any) -> st.SearchStrategy[Any]:  # noqa: C901 - one case per kind of type
    match info:
        case inspect.Metadata(type=inner):
            return _of(inner)
        case inspect.UnionType(types=types):
            return st.one_of([st.none() if isinstance(one, inspect.NoneType) else _of(one) for one in types])
        case inspect.StructType(cls=cls):
            return documents_of(cls)
        case inspect.DictType(value_type=value):
            return st.dictionaries(TEXT, _of(value), max_size=2)
        case inspect.VarTupleType(item_type=item, min_length=least):
            return st.lists(_of(item), min_size=least or 0, max_size=2).map(tuple)
        case inspect.LiteralType(values=values):
            return st.sampled_from(list(values))
        case inspect.StrType(pattern=None):
            return TEXT
        case inspect.StrType(pattern=pattern):
            return DATE if r"\d{4}-\d{2}" in str(pattern) else st.from_regex(str(pattern), fullmatch=True)
        case inspect.IntType(ge=low, le=high):
            # YAML knows larger numbers, the documents do not: 64 bits.
            return st.integers(low if low is not None else -(1 << 60), high if high is not None else (1 << 60))
        case inspect.FloatType():
            return st.decimals(min_value="0.001", max_value=10**6, places=3).map(float)
        case inspect.BoolType():
            return st.booleans()
    raise AssertionError(info)


@pytest.mark.parametrize("kind", [FeedDocument, SchemaDocument, EnvironmentDocument])
@given(data=st.data())
@settings(max_examples=15, deadline=None)
def test_what_is_rendered_is_read_back_equal(kind: type[Any], data: st.DataObject) -> None:
    document = data.draw(documents_of(kind))
    text = render(document, "# heading\n")
    root, findings = read_yaml("file", text.encode())
    assert (findings, root is not None) == ([], True), text
    assert root is not None
    converted = conversion.convert("file", root, kind)
    assert converted.findings == [], text
    assert converted.value == document
    assert render(converted.value, "# heading\n") == text


def test_plain_text_stays_plain_and_the_rest_is_quoted() -> None:
    assert [scalar(one) for one in ("kalshi", "$key:kalshi.api_key", "https://a.b/c?", "America/New_York")] == [
        "kalshi",
        "$key:kalshi.api_key",
        '"https://a.b/c?"',
        "America/New_York",
    ]
    assert [scalar(one) for one in ("yes", "03:00", "1", "a: b", "a#", "é\x00\x85\U0001f600\ud7ff")] == [
        '"yes"',
        '"03:00"',
        '"1"',
        '"a: b"',
        '"a#"',
        '"é\\x00\\x85\U0001f600\\ud7ff"',
    ]
