"""YAML text -> a tree of nodes that still know their text and place.

Scalars stay text here: what `8900` or `2026-03-12` means is decided by the field's type (`registry.conversion`), never by
YAML's guesses. Refused: duplicate keys, keys that are no text, anchors and aliases, explicit tags, several documents.
"""

from __future__ import annotations

from typing import Final

import yaml

from ssmd.registry.findings import Finding, Place

SIZE_MAX: Final = 1 << 20
"""Bytes of one document; a larger file is refused unread."""
DEPTH_MAX: Final = 60
"""Levels of nesting; libyaml and PyYAML recurse per level."""

_FAST_LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_PLAIN_TAGS: Final = frozenset(
    f"tag:yaml.org,2002:{name}"
    for name in ("str", "int", "float", "bool", "null", "timestamp", "seq", "map", "merge", "value", "binary")
)


def place_of(node: yaml.Node) -> Place:
    """Where the node begins."""
    mark = node.start_mark
    return Place(mark.line + 1, mark.column + 1)


def read_yaml(file: str, payload: bytes) -> tuple[yaml.Node | None, list[Finding]]:
    """The root node of one document and what is wrong with its form; no node when it cannot be parsed at all."""
    try:
        text = payload.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = payload[: error.start].count(b"\n") + 1
        return None, [Finding(file, line, 1, "encoding", f"byte {error.start} is not UTF-8", "save the file as UTF-8")]
    if len(payload) > SIZE_MAX:
        return None, [Finding(file, 0, 0, "file-size", f"{len(payload)} bytes; a document has at most {SIZE_MAX}")]
    if (deep := _too_deep(text)) is not None:
        return None, [
            Finding(file, deep.line, deep.column, "yaml-depth", f"nested deeper than {DEPTH_MAX} levels", "check the brackets")
        ]
    try:
        root = yaml.compose(text, Loader=_FAST_LOADER)
    except yaml.YAMLError:
        return None, [_syntax_finding(file, text)]
    if root is None:
        return None, [Finding(file, 0, 0, "empty", "the file holds no document", "write the document or delete the file")]
    return root, _form_findings(file, root)


def _too_deep(text: str) -> Place | None:
    """Where nesting, by brackets or by indentation, passes DEPTH_MAX; text in quotes counts too, which only errs on
    files nobody writes.
    """
    depth = 0
    count = text.count("[") + text.count("{")
    for number, line in enumerate(text.splitlines(), 1):
        dashes = len(line) - len(line.lstrip(" -?"))
        if dashes > 2 * DEPTH_MAX:
            return Place(number, 1)
        if count <= DEPTH_MAX:
            continue
        for column, char in enumerate(line, 1):
            if char in "[{":
                depth += 1
                if depth > DEPTH_MAX:
                    return Place(number, column)
            elif char in "]}":
                depth -= 1
    return None


def _syntax_finding(file: str, text: str) -> Finding:
    """Parse again with the Python scanner, whose words do not depend on the machine's libyaml, and name the mistake."""
    try:
        yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        if "could not find expected ':'" in (error.problem or ""):
            mark = error.context_mark or mark  # where the key begins; the problem shows a line later
        place = Place(mark.line + 1, mark.column + 1) if mark else Place()
        rule, message, mend = _explain(error.problem or error.context or "not YAML", text, place)
        return Finding(file, place.line, place.column, rule, message, mend)
    except yaml.YAMLError as error:
        position = getattr(error, "position", 0)
        place = Place(text[:position].count("\n") + 1, position - (text.rfind("\n", 0, position) + 1) + 1)
        return Finding(file, *place, "yaml-syntax", "a character that YAML does not allow", "delete it")
    return Finding(file, 0, 0, "yaml-syntax", "not YAML")


def _explain(problem: str, text: str, place: Place) -> tuple[str, str, str]:
    """(rule, message, mend) in words a person can act on; PyYAML's own words where none fit better."""
    lines = text.splitlines()
    line = lines[place.line - 1] if 0 < place.line <= len(lines) else ""
    if line[place.column - 1 : place.column] == "\t" or "\t" in line[: len(line) - len(line.lstrip())]:
        return "tab", "a tab cannot indent or separate YAML", "use spaces"
    if "mapping values are not allowed" in problem:
        return "yaml-syntax", 'a second ": " on one line, or a wrong indent', 'put text with ": " in quotes'
    if "expected <block end>" in problem or "block mapping" in problem or "expected alphabetic" in problem:
        return "indent", "wrong indent: this line does not line up with the lines above", "align it with its neighbours"
    if "could not find expected ':'" in problem:
        return "yaml-syntax", 'a key without ":"', "write key: value"
    if "but found another document" in problem or "expected '<document start>'" in problem:
        return "yaml-syntax", "a second document begins here; a file holds one", "move it to a file of its own"
    if "undefined alias" in problem:
        return "alias", "anchors and aliases are not used here", "write the value out, or put text with * or & in quotes"
    return "yaml-syntax", f"not YAML: {problem}", ""


def _form_findings(file: str, root: yaml.Node) -> list[Finding]:
    """Everything that YAML allows and the registry does not, over the whole tree."""
    findings: list[Finding] = []
    seen: set[int] = set()
    waiting = [root]
    while waiting:
        node = waiting.pop()
        place = place_of(node)
        if id(node) in seen:
            findings.append(Finding(file, *place, "alias", "anchors and aliases are not used here", "write the value out"))
            continue
        seen.add(id(node))
        if node.tag not in _PLAIN_TAGS:
            tag = node.tag.removeprefix("tag:yaml.org,2002:")
            findings.append(Finding(file, *place, "tag", f'explicit tag "{tag}" is not used here', "delete the tag"))
        if isinstance(node, yaml.SequenceNode):
            waiting.extend(node.value)
        elif isinstance(node, yaml.MappingNode):
            findings.extend(_key_findings(file, node))
            waiting.extend(value for _, value in node.value)
    return findings


def _key_findings(file: str, node: yaml.MappingNode) -> list[Finding]:
    findings: list[Finding] = []
    first: dict[str, Place] = {}
    for key, _ in node.value:
        place = place_of(key)
        if not isinstance(key, yaml.ScalarNode):
            findings.append(Finding(file, *place, "key", "a key must be text", "put text with { or [ in quotes"))
        elif key.value in first:
            message = f'key "{key.value}" stands twice, first in line {first[key.value].line}'
            findings.append(Finding(file, *place, "duplicate-key", message, "delete one of them"))
        else:
            first[key.value] = place
    return findings
