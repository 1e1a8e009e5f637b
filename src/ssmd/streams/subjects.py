"""The subject grammar. Every subject of ssmd is made and taken apart here.

    {env}.raw.{feed}.{connection}              a tape block, byte for byte
    {env}.md.{feed}.{kind}.{ticker}            1..m records of one ticker and kind from one block
    {env}.md.{feed}.mark.{connection}          after the records of each block
    {env}.journal.{aggregate}.{id...}          domain events, one exact subject per aggregate
    {env}.dlq.{component}                      what could not be processed
    {env}.svc.{component}.{instance}.{verb}    control: request/reply

Every variable part is a token of `identifiers.encode_token`.
"""

from __future__ import annotations

from typing import NamedTuple

from ssmd.errors import Malformed
from ssmd.identifiers import decode_token, encode_token

KINDS = ("trade", "book", "snapshot", "quote", "status", "gap")
MARK = "mark"


def raw(env: str, feed: str, connection: str) -> str:
    """Subject of one connection's tape blocks."""
    return f"{encode_token(env)}.raw.{encode_token(feed)}.{encode_token(connection)}"


def raw_filter(env: str, feed: str) -> str:
    """All connections' tape blocks of a feed."""
    return f"{encode_token(env)}.raw.{encode_token(feed)}.*"


def market(env: str, feed: str, kind: str, ticker: str) -> str:
    """Subject of one ticker's records of one kind."""
    return f"{encode_token(env)}.md.{encode_token(feed)}.{kind}.{encode_token(ticker)}"


def kind_filter(env: str, feed: str, kind: str) -> str:
    """All tickers' records of one kind."""
    return f"{encode_token(env)}.md.{encode_token(feed)}.{kind}.*"


def market_filter(env: str, feed: str) -> str:
    """All records and marks of a feed."""
    return f"{encode_token(env)}.md.{encode_token(feed)}.>"


def mark(env: str, feed: str, connection: str) -> str:
    """Subject of a connection's marks."""
    return f"{encode_token(env)}.md.{encode_token(feed)}.mark.{encode_token(connection)}"


def journal(env: str, aggregate: str, id_parts: tuple[str, ...]) -> str:
    """The exact subject of one aggregate."""
    return ".".join((encode_token(env), "journal", encode_token(aggregate), *(encode_token(part) for part in id_parts)))


def journal_filter(env: str, aggregate: str = "", id_parts: tuple[str, ...] = ()) -> str:
    """All events, or all of one kind of aggregate, or of the aggregates whose id starts with `id_parts`."""
    head = [encode_token(env), "journal"]
    if aggregate:
        head.append(encode_token(aggregate))
    return ".".join([*head, *(encode_token(part) for part in id_parts), ">"])


def dead_letter(env: str, component: str) -> str:
    """Where `component` puts what it cannot process."""
    return f"{encode_token(env)}.dlq.{encode_token(component)}"


def service(env: str, component: str, instance: str, verb: str) -> str:
    """Control subject of one running component."""
    return f"{encode_token(env)}.svc.{encode_token(component)}.{encode_token(instance)}.{encode_token(verb)}"


class MarketSubject(NamedTuple):
    """A taken-apart market subject; for a mark, `kind` is "mark" and `name` the connection, else the ticker."""

    env: str
    feed: str
    kind: str
    name: str


def parse_market(subject: str) -> MarketSubject:
    """Take a market subject apart.

    Raises:
        Malformed: when it is none.
    """
    tokens = subject.split(".")
    if len(tokens) != 5 or tokens[1] != "md" or (tokens[3] not in KINDS and tokens[3] != MARK):
        raise Malformed(f"not a market subject: {subject!r}")
    try:
        return MarketSubject(decode_token(tokens[0]), decode_token(tokens[2]), tokens[3], decode_token(tokens[4]))
    except ValueError as error:
        raise Malformed(f"not a market subject: {subject!r}: {error}") from error


def parse_raw(subject: str) -> tuple[str, str, str]:
    """(env, feed, connection) of a raw subject.

    Raises:
        Malformed: when it is none.
    """
    tokens = subject.split(".")
    if len(tokens) != 4 or tokens[1] != "raw":
        raise Malformed(f"not a raw subject: {subject!r}")
    try:
        return decode_token(tokens[0]), decode_token(tokens[2]), decode_token(tokens[3])
    except ValueError as error:
        raise Malformed(f"not a raw subject: {subject!r}: {error}") from error
