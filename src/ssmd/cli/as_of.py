"""The option that every question has: what was known then."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ssmd.projections.reading import AsOf


def as_of_given(text: str) -> AsOf | None:
    """What `--as-of` means; None = now."""
    from ssmd.projections.reading import parse_as_of  # noqa: PLC0415 - keeps --help quick

    return parse_as_of(text) if text else None


def checked_as_of(text: str) -> str:
    """`text` if it says which moment is meant, or "" (callback of options)."""
    from ssmd.errors import Rejected  # noqa: PLC0415 - keeps --help quick

    try:
        as_of_given(text)
    except Rejected as error:
        raise typer.BadParameter(f"{error.message}; {error.mend}") from error
    return text


AsOfOption = Annotated[
    str,
    typer.Option(
        "--as-of",
        metavar="TIME|SEQUENCE",
        callback=checked_as_of,
        help="As it was known then: a journal position, a UTC date (its first moment) or a time in ISO 8601.",
    ),
]
