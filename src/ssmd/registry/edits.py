"""The edits that commands make, each a function from the tree to the files that change."""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Literal

import msgspec

from ssmd.errors import Rejected
from ssmd.registry.changes import Edit
from ssmd.registry.conversion import Path
from ssmd.registry.documents import NAME_FORM, EnvironmentDocument, FeedDocument, SchemaDocument
from ssmd.registry.editor_schemas import modeline
from ssmd.registry.findings import did_you_mean
from ssmd.registry.rendering import block
from ssmd.registry.sources import read_sources
from ssmd.registry.tree import Tree
from ssmd.registry.yaml_edits import append_item, set_value

Kind = Literal["feed", "schema", "environment"]
FOLDER_OF: Final[dict[Kind, str]] = {"feed": "feeds", "schema": "schemas", "environment": "environments"}
DOCUMENT_OF: Final[dict[Kind, type[msgspec.Struct]]] = {
    "feed": FeedDocument,
    "schema": SchemaDocument,
    "environment": EnvironmentDocument,
}


def path_of(kind: Kind, name: str) -> str:
    """Path of a document in exchanges/."""
    return f"{FOLDER_OF[kind]}/{name}.yaml"


def create_document(kind: Kind, name: str, fields: Mapping[str, Any], also: Mapping[str, bytes] | None = None) -> Edit:
    """A new document with `fields` (dicts, lists, scalars), and the files `also` beside it."""

    def edit(tree: Tree) -> Mapping[str, bytes]:
        path = path_of(kind, name)
        if not re.fullmatch(NAME_FORM, name):
            raise Rejected("bad-name", f'"{name}" is no name: 1 to 63 of a-z, 0-9 and -, no - at either end')
        if path in tree.files or path in tree.unreadable:
            raise Rejected("exists", f'{kind} "{name}" exists already', mend=f"ssmd {_group(kind)} update {name} --help")
        order = order_at(DOCUMENT_OF[kind], ())
        ordered = {key: fields[key] for key in (*order, *(key for key in fields if key not in order)) if key in fields}
        text = modeline(kind) + "".join(f"{line}\n" for line in block(ordered))
        return {path: text.encode(), **(also or {})}

    return edit


def set_fields(kind: Kind, name: str, assignments: Iterable[tuple[Path, Any]]) -> Edit:
    """Values of a document, set in the order given."""

    def edit(tree: Tree) -> Mapping[str, bytes]:
        def change(text: str) -> str:
            for path, value in assignments:
                try:
                    text = set_value(text, path, value, order_at(DOCUMENT_OF[kind], path[:-1]))
                except KeyError:
                    shown = ".".join(map(str, path))
                    raise Rejected("no-such-place", f'{kind} "{name}" has no place {shown}') from None
            return text

        return {path_of(kind, name): edited(tree, kind, name, change)}

    return edit


def add_item(kind: Kind, name: str, path: Path, item: Any, also: Mapping[str, bytes] | None = None) -> Edit:
    """One item more at the end of a list of a document that holds some already, and the files `also`."""

    def edit(tree: Tree) -> Mapping[str, bytes]:
        return {path_of(kind, name): edited(tree, kind, name, lambda text: append_item(text, path, item)), **(also or {})}

    return edit


def add_key(name: str, key: str, definition: Mapping[str, Any]) -> Edit:
    """One key definition more in an environment; keys stand first in the document."""

    def edit(tree: Tree) -> Mapping[str, bytes]:
        document = read_sources(tree.only("environments"))[0].environments.get(name)
        if document is not None and key in document.document.keys:
            mend = f"ssmd env update {name} --set keys.{key}.FIELD=VALUE"
            raise Rejected("exists", f'environment "{name}" defines the key "{key}" already', mend=mend)
        return set_fields("environment", name, [(("keys", key), definition)])(tree)

    return edit


def edited(tree: Tree, kind: Kind, name: str, change: Callable[[str], str]) -> bytes:
    """The bytes of a document after `change` of its text; its byte order mark and line ends stay.

    Raises:
        Rejected: there is no such document, or it cannot be read as YAML.
    """
    path = path_of(kind, name)
    payload = tree.files.get(path)
    if payload is None:
        known = names_of(tree, kind)
        there = f"there are {', '.join(known)}" if known else "there are none"
        raise Rejected("no-such-document", f'there is no {kind} "{name}"; {there}', mend=did_you_mean(name, known))
    sources, findings = read_sources(tree.only(FOLDER_OF[kind]))
    if f"{FOLDER_OF[kind]}/{name}" in sources.broken:
        shown = "\n".join(f"  {finding}" for finding in findings if finding.file.endswith(path))
        raise Rejected("registry-mistakes", f'{kind} "{name}" must be mended by hand first:\n{shown}', mend="ssmd validate")
    mark = codecs.BOM_UTF8 if payload.startswith(codecs.BOM_UTF8) else b""
    return mark + change(payload.decode("utf-8-sig")).encode()


def names_of(tree: Tree, kind: Kind) -> list[str]:
    """Names of the documents of `kind` that there are files for."""
    folder = f"{FOLDER_OF[kind]}/"
    return sorted(
        path.removeprefix(folder).removesuffix(".yaml")
        for path in tree.files
        if path.startswith(folder) and path.endswith(".yaml")
    )


def order_at(document: type[msgspec.Struct], path: Path) -> tuple[str, ...]:
    """Names of the fields of the mapping at `path`, in the order of their type; () where they are free."""
    found: Any = document
    for part in path:
        fields = {field.encode_name: field.type for field in msgspec.structs.fields(found)}
        found = fields.get(part) if isinstance(part, str) else None
        if not (isinstance(found, type) and issubclass(found, msgspec.Struct)):
            return ()
    return tuple(found.__struct_encode_fields__)


def _group(kind: Kind) -> str:
    return "env" if kind == "environment" else kind
