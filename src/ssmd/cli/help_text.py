"""The parts that every command's help has."""

from __future__ import annotations


def examples(*lines: str) -> str:
    """The end of a command's help: command lines to copy. (The backspace keeps Typer from joining the lines.)"""
    return "\n".join(["\b", "Example:", *(f"  {line}" for line in lines)])
