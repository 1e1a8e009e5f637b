"""Nodes -> a document type, strictly, by the field's type alone; every mistake of the tree is found, not only the first.

Text may stand unquoted unless YAML would read it as something else (`123`, `yes`, `3:00`): then it must be quoted. Dates
may stand unquoted, since nobody quotes them. Numbers and booleans must not be quoted.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import date
from typing import Any, Final, NamedTuple, get_args

import msgspec
import yaml
from msgspec import inspect

from ssmd.registry.documents import Date, Name, TimeOfDay
from ssmd.registry.findings import Finding, Place, did_you_mean
from ssmd.registry.yaml_nodes import place_of

Path = tuple[str | int, ...]
"""From the document's root to a value: ("capture", "tickers", 0)."""


class Converted(NamedTuple):
    """`value` is None when `findings` is not empty; `places` knows every value that the document has."""

    value: Any
    places: dict[Path, Place]
    findings: list[Finding]


_BAD: Final = object()
_INTEGER: Final = re.compile(r"[-+]?(?:0|[1-9][0-9]*(?:_[0-9]+)*)")
_DECIMAL: Final = re.compile(r"[-+]?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?")
_DATE_FORM: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_KINDS: Final = {
    "int": "the number",
    "float": "the number",
    "bool": "the boolean",
    "timestamp": "the date",
    "str": "the text",
    "merge": "the merge key",
    "value": "the text",
}


def _pattern(annotated: Any) -> str:
    """The pattern of an annotated text type."""
    return str(get_args(annotated)[1].pattern)


_PATTERN_OF_DATE: Final = _pattern(Date)
_PATTERN_OF_TIME: Final = _pattern(TimeOfDay)
_PATTERN_WORDS: Final = {
    _pattern(Name): "a name: 1 to 63 of a-z, 0-9 and -, no - at either end",
    _PATTERN_OF_TIME: 'a time of day "HH:MM"',
    r"^[0-9a-f]{64}$": "a sha256: 64 lower-case hex digits",
    r"^(max|\d+(\.\d+)?x)$": "max, or a factor such as 1x or 2.5x",
}


def convert(file: str, root: yaml.Node, document: type[msgspec.Struct]) -> Converted:
    """`root` as a `document`."""
    converter = _Converter(file)
    plain = converter.value((), root, _type_info(document))
    if converter.findings:
        return Converted(None, converter.places, converter.findings)
    try:
        value = msgspec.convert(plain, document)
    except msgspec.ValidationError as error:  # a constraint this module does not know by name
        converter.findings.append(Finding(file, *place_of(root), "wrong-value", str(error)))
        return Converted(None, converter.places, converter.findings)
    return Converted(value, converter.places, converter.findings)


_TYPE_INFO: dict[type[msgspec.Struct], inspect.Type] = {}


def _type_info(document: type[msgspec.Struct]) -> inspect.Type:
    info = _TYPE_INFO.get(document)
    if info is None:
        info = _TYPE_INFO[document] = inspect.type_info(document)
    return info


def is_date(text: str) -> bool:
    """Whether `text` is YYYY-MM-DD and stands in the calendar."""
    if not _DATE_FORM.fullmatch(text):
        return False
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return True


def _dotted(path: Path) -> str:
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text or "the document"


def _shown(node: yaml.Node) -> str:
    """What stands there, in the words of a message."""
    if isinstance(node, yaml.MappingNode):
        return "a mapping"
    if not isinstance(node, yaml.ScalarNode):
        return "a list"
    kind = node.tag.removeprefix("tag:yaml.org,2002:")
    if kind == "null":
        return "nothing"
    text = node.value if len(node.value) <= 60 else node.value[:57] + "..."
    return f'the text "{text}"' if node.style else f"{_KINDS.get(kind, 'the text')} {text}"


class _Converter:
    def __init__(self, file: str) -> None:
        self.file = file
        self.places: dict[Path, Place] = {}
        self.findings: list[Finding] = []

    def refuse(self, node: yaml.Node, rule: str, message: str, mend: str = "") -> Any:
        self.findings.append(Finding(self.file, *place_of(node), rule, message, mend))
        return _BAD

    def expected(self, path: Path, node: yaml.Node, what: str, mend: str = "") -> Any:
        return self.refuse(node, "wrong-type", f"{_dotted(path)} must be {what}, found {_shown(node)}", mend)

    def value(self, path: Path, node: yaml.Node, kind: inspect.Type) -> Any:
        """`node` as plain data for `kind`; _BAD after a finding."""
        self.places[path] = place_of(node)
        if isinstance(kind, inspect.Metadata):
            return self.value(path, node, kind.type)
        if isinstance(kind, inspect.UnionType):
            if node.tag == "tag:yaml.org,2002:null" and any(isinstance(one, inspect.NoneType) for one in kind.types):
                return None
            (one,) = (one for one in kind.types if not isinstance(one, inspect.NoneType))
            return self.value(path, node, one)
        return _READERS[type(kind)](self, path, node, kind)

    def struct(self, path: Path, node: yaml.Node, kind: inspect.StructType) -> Any:
        if not isinstance(node, yaml.MappingNode):
            return self.expected(path, node, "a mapping")
        fields = {field.encode_name: field for field in kind.fields}
        plain: dict[str, Any] = {}
        for key, child in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.value in plain:
                continue  # reported with the document's form
            field = fields.get(key.value)
            if field is None:
                where = f" in {_dotted(path)}" if path else ""
                mend = did_you_mean(key.value, fields) or f"known: {', '.join(fields)}"
                self.refuse(key, "unknown-key", f'unknown key "{key.value}"{where}', mend)
                continue
            plain[key.value] = self.value((*path, key.value), child, field.type)
        for name, field in fields.items():
            if field.required and name not in plain:
                self.refuse(node, "missing-field", f'{_dotted(path)} lacks the field "{name}"', f"add {name}:")
        return plain

    def mapping(self, path: Path, node: yaml.Node, kind: inspect.DictType) -> Any:
        if not isinstance(node, yaml.MappingNode):
            return self.expected(path, node, "a mapping")
        plain: dict[str, Any] = {}
        for key, child in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value not in plain:
                plain[key.value] = self.value((*path, key.value), child, kind.value_type)
        return plain

    def sequence(self, path: Path, node: yaml.Node, kind: inspect.VarTupleType) -> Any:
        if not isinstance(node, yaml.SequenceNode):
            return self.expected(path, node, "a list", "write [a, b], or lines that begin with -")
        if kind.min_length and len(node.value) < kind.min_length:
            return self.refuse(
                node, "too-few", f"{_dotted(path)} must hold at least {kind.min_length}, found {len(node.value)}"
            )
        return [self.value((*path, index), child, kind.item_type) for index, child in enumerate(node.value)]

    def text(self, path: Path, node: yaml.Node, kind: inspect.StrType) -> Any:
        if not isinstance(node, yaml.ScalarNode):
            return self.expected(path, node, "text")
        if kind.pattern == _PATTERN_OF_DATE:
            return self.date(path, node)
        tag = node.tag.removeprefix("tag:yaml.org,2002:")
        is_time = ":" in node.value and (tag in {"int", "float"} or kind.pattern == _PATTERN_OF_TIME)
        if not node.style and (is_time or (tag != "str" and not self._fits(kind, tag, node.value))):
            if tag == "null":
                return self.expected(path, node, "text", 'write "" for none')
            if is_time:
                reader = "some YAML readers take for" if tag == "str" else "YAML reads as"
                message = f"{_dotted(path)} is an unquoted time, which {reader} a number: {node.value}"
                return self.refuse(node, "unquoted-time", message, f'write "{node.value}"')
            return self.expected(path, node, "text", f'write "{node.value}"')
        if kind.pattern and not re.fullmatch(kind.pattern, node.value):  # `$` alone lets a last newline pass
            words = _PATTERN_WORDS.get(kind.pattern, f"text that matches {kind.pattern}")
            return self.refuse(node, "wrong-form", f'{_dotted(path)} must be {words}, found "{node.value}"')
        return node.value

    @staticmethod
    def _fits(kind: inspect.StrType, tag: str, text: str) -> bool:
        """Whether text that YAML would read as something else can only be meant as text here."""
        return tag == "value" or bool(kind.pattern and re.fullmatch(kind.pattern, text))

    def date(self, path: Path, node: yaml.ScalarNode) -> Any:
        if not _DATE_FORM.fullmatch(node.value):
            message = f"{_dotted(path)} must be a date YYYY-MM-DD, found {_shown(node)}"
            return self.refuse(node, "bad-date", message)
        if not is_date(node.value):
            return self.refuse(node, "bad-date", f"{_dotted(path)}: {node.value} is not in the calendar")
        return node.value

    def number(self, path: Path, node: yaml.Node, kind: inspect.IntType | inspect.FloatType) -> Any:
        is_integer = isinstance(kind, inspect.IntType)
        what, form = ("an integer", _INTEGER) if is_integer else ("a decimal number", _DECIMAL)
        if not isinstance(node, yaml.ScalarNode):
            return self.expected(path, node, what)
        if node.style:
            mend = f"write {node.value} without quotes" if form.fullmatch(node.value) else ""
            return self.expected(path, node, what, mend)
        if not form.fullmatch(node.value) or len(node.value) > 30:
            return self.expected(path, node, what)
        number = int(node.value) if is_integer else float(node.value)
        low, high = kind.ge, kind.le
        if (low is not None and number < low) or (high is not None and number > high):
            bounds = (
                f"{low}..{high}"
                if low is not None and high is not None
                else f"at least {low}"
                if high is None
                else f"at most {high}"
            )
            return self.refuse(node, "out-of-range", f"{_dotted(path)} must be {bounds}, found {node.value}")
        if kind.gt is not None and number <= kind.gt:
            return self.refuse(node, "out-of-range", f"{_dotted(path)} must be more than {kind.gt}, found {node.value}")
        return number

    def boolean(self, path: Path, node: yaml.Node, kind: inspect.BoolType) -> Any:
        del kind
        if not isinstance(node, yaml.ScalarNode) or node.style or node.value not in {"true", "false"}:
            return self.expected(path, node, "true or false")
        return node.value == "true"

    def literal(self, path: Path, node: yaml.Node, kind: inspect.LiteralType) -> Any:
        values = [str(one) for one in kind.values]
        if not isinstance(node, yaml.ScalarNode) or node.value not in values:
            found = _shown(node)
            mend = did_you_mean(node.value, values) if isinstance(node, yaml.ScalarNode) else ""
            return self.refuse(
                node, "unknown-value", f"{_dotted(path)} must be one of {', '.join(values)}; found {found}", mend
            )
        return node.value


_Reader = Callable[[_Converter, Path, yaml.Node, Any], Any]
_READERS: Final[dict[type[inspect.Type], _Reader]] = {
    inspect.StructType: _Converter.struct,
    inspect.DictType: _Converter.mapping,
    inspect.VarTupleType: _Converter.sequence,
    inspect.StrType: _Converter.text,
    inspect.IntType: _Converter.number,
    inspect.FloatType: _Converter.number,
    inspect.BoolType: _Converter.boolean,
    inspect.LiteralType: _Converter.literal,
}
