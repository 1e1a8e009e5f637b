"""How the code base is laid out: layers, imports without effect, every module introduced."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "ssmd"
MODULES = sorted(path for path in SOURCE.rglob("*.py"))
LINES_MAX, FUNCTION_LINES_MAX = 400, 70


def name_of(path: Path) -> str:
    return str(path.relative_to(SOURCE.parent))


@cache
def facts_of(path: Path) -> tuple[int, str, list[tuple[int, str, int]], list[ast.List | ast.Tuple]]:
    """(lines, docstring, (line, name, length) of each function, lists that begin with our own interpreter).

    Read once for all tests; not the trees themselves, which together are millions of objects.
    """
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    functions: list[tuple[int, str, int]] = []
    started: list[ast.List | ast.Tuple] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            functions.append((node.lineno, node.name, (node.end_lineno or node.lineno) - node.lineno + 1))
        elif isinstance(node, ast.List | ast.Tuple) and node.elts and isinstance(node.elts[0], ast.Attribute):
            started += [node] if ast.unparse(node.elts[0]) == "sys.executable" else []
    return len(text.splitlines()), ast.get_docstring(tree) or "", functions, started


def test_the_layers_and_the_homes_of_drivers_are_kept() -> None:
    checked = subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports; raise SystemExit(lint_imports(no_cache=True))"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout[-3000:] + checked.stderr[-3000:]
    assert "0 broken" in checked.stdout


# Imports every module and reports what happened meanwhile that should not: (module, audited event, arguments).
_WATCH = """
import importlib, json, os, pkgutil, sys, threading

found, now = [], "ssmd"
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
EFFECTS = ("socket.bind", "socket.connect", "socket.listen", "socket.getaddrinfo", "subprocess.Popen", "os.fork", "os.exec",
           "os.posix_spawn", "os.mkdir", "os.remove", "os.rename", "os.putenv", "os.unsetenv", "os.chdir", "shutil.rmtree",
           "signal.signal", "_thread.start_new_thread")

def watch(event, arguments):
    if event in EFFECTS or (event == "open" and isinstance(arguments[2], int) and arguments[2] & WRITING):
        found.append((now, event, repr(arguments)[:200]))

sys.addaudithook(watch)
import ssmd
names = ["ssmd", *sorted(module.name for module in pkgutil.walk_packages(ssmd.__path__, "ssmd."))]
for now in names:
    if not now.endswith("__main__"):
        importlib.import_module(now)
import logging
print(json.dumps({
    "modules": len(names),
    "found": found,
    "threads": [thread.name for thread in threading.enumerate()],
    "handlers": [repr(handler) for handler in logging.getLogger().handlers],
}))
"""


def test_importing_any_module_has_no_effect() -> None:
    watched = subprocess.run(
        [sys.executable, "-B", "-W", "error", "-c", _WATCH], capture_output=True, text=True, timeout=100, check=False, cwd="/"
    )
    assert watched.returncode == 0, watched.stderr[-3000:]
    assert watched.stderr == ""
    report = json.loads(watched.stdout)
    assert report["found"] == []
    assert report["threads"] == ["MainThread"]
    assert report["handlers"] == []
    assert report["modules"] == len(MODULES)


def test_every_module_says_what_it_is_and_is_one_concept_long() -> None:
    assert [name_of(path) for path in MODULES if not facts_of(path)[1]] == [], "no docstring"
    long = [name_of(path) for path in MODULES if facts_of(path)[0] > LINES_MAX]
    assert long == [], "too long: what are its two concepts?"


def test_no_folder_or_file_is_a_drawer() -> None:
    drawers = {"utils", "util", "common", "helpers", "helper", "base", "manager", "core", "misc"}
    assert [name_of(path) for path in SOURCE.rglob("*") if path.stem in drawers] == []


def test_no_function_is_longer_than_a_screen() -> None:
    long = [
        f"{name_of(path)}:{line} {name} ({length} lines)"
        for path in MODULES
        for line, name, length in facts_of(path)[2]
        if length > FUNCTION_LINES_MAX
    ]
    assert long == []


def test_our_own_processes_do_not_import_from_the_current_directory() -> None:
    """It is the user's: a `signal.py` there, of a strategy, would be taken for the library's."""
    started = [(name_of(path), node) for path in MODULES for node in facts_of(path)[3]]
    assert len(started) >= 4
    assert [name for name, node in started if ast.unparse(node.elts[1]) not in {"'-P'", "'-I'"}] == []
