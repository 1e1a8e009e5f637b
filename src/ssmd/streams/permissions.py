"""What each component may do at the NATS servers: as little as it needs, by subject.

    role                    journal server                            transport server
    connector               writes capture, listing, secmaster-sync,  writes raw, market; reads where they end
                            dead-letter
    raw-archiver            writes archive, dead-letter               reads raw
    normalized-archiver     writes archive, dead-letter               reads market
    projector               writes projection, dead-letter            -
    gateway                 reads                                     reads market
    operator                everything of the environment             everything of the environment

All but the gateway read the journal and write `key` events (that they loaded one). Each may be asked over its own control
subjects and answers there, and puts what it cannot process to its own dead letters. Only the operator makes, changes or
deletes streams. A role that is not in the table gets what all have. Each user has an inbox of its own: nobody reads
another's answers.
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

from ssmd.identifiers import encode_token

Endpoint = Literal["journal", "transport"]
Role = Literal["raw", "market", "dlq", "journal"]

OPERATOR: Final = "operator"
ROLES: Final = (OPERATOR, "connector", "raw-archiver", "normalized-archiver", "projector", "gateway", "simulator", "worker")
RESPONSE_S: Final = 300
"""How long after a question its answer may be sent; a flush takes up to a minute."""

_WRITES: Final[dict[str, tuple[str, ...]]] = {
    "connector": ("capture", "listing", "secmaster-sync", "dead-letter", "key"),
    "raw-archiver": ("archive", "dead-letter", "key"),
    "normalized-archiver": ("archive", "dead-letter", "key"),
    "projector": ("projection", "dead-letter", "key"),
    "worker": ("trading-day", "archive", "listing", "secmaster-sync", "key"),
    "gateway": (),
}
_READS: Final[dict[str, tuple[Role, ...]]] = {
    "raw-archiver": ("raw",),
    "normalized-archiver": ("market",),
    "gateway": ("market",),
    "worker": ("raw", "market"),
}
_ASKS: Final = {"worker": ("*",)}
"""Whose control subjects a role may ask, beside those of its own kind (a second instance asks whether the first lives)."""


class Permissions(NamedTuple):
    """Subjects a user may publish to and subscribe to; nothing else."""

    publish: tuple[str, ...]
    subscribe: tuple[str, ...]


def permissions(env: str, feed: str, role: str, endpoint: Endpoint, inbox: str) -> Permissions:
    """What `role` may do at one server. `inbox`: prefix of the user's own answers."""
    token = encode_token(env)
    answers = (f"{inbox}.>",)
    if role == OPERATOR:
        return Permissions((f"{token}.>", "$JS.API.>", "$SRV.>"), (f"{token}.>", "$JS.EVENT.>", *answers))
    if endpoint == "journal":
        return Permissions(tuple(_journal(token, role)), answers)
    publish = [f"{token}.dlq.{encode_token(role)}"]
    for asked in (role, *_ASKS.get(role, ())):
        publish += [f"{token}.svc.{asked}.*.health"] if asked == role else [f"{token}.svc.{asked}.*.*"]
    if role == "connector":
        publish += [f"{token}.raw.{encode_token(feed)}.*", f"{token}.md.{encode_token(feed)}.>"]
        for stream in ("raw", "market"):
            publish += _ends(f"{token}-{stream}")
    for stream_role in _READS.get(role, ()):
        publish += _reading(f"{token}-{stream_role}")
    return Permissions(tuple(publish), (f"{token}.svc.{encode_token(role)}.>", "$SRV.>", *answers))


def _journal(token: str, role: str) -> list[str]:
    subjects = _reading(f"{token}-journal")
    writes = _WRITES.get(role, ("key",))
    subjects += [f"{token}.journal.{aggregate}.>" for aggregate in writes]
    snapshots = f"{token}-snapshot"
    subjects += [f"$JS.API.STREAM.INFO.{snapshots}", f"$JS.API.DIRECT.GET.{snapshots}.>"]
    if writes:
        subjects += [f"{token}.snapshot.{aggregate}.>" for aggregate in writes]
        subjects.append(f"$JS.API.STREAM.CREATE.{snapshots}")
    return subjects


def _ends(stream: str) -> list[str]:
    """To find out what a stream holds."""
    return [f"$JS.API.STREAM.INFO.{stream}", f"$JS.API.STREAM.MSG.GET.{stream}"]


def _reading(stream: str) -> list[str]:
    return [
        *_ends(stream),
        f"$JS.API.DIRECT.GET.{stream}",
        f"$JS.API.DIRECT.GET.{stream}.>",
        f"$JS.API.CONSUMER.CREATE.{stream}",
        f"$JS.API.CONSUMER.CREATE.{stream}.>",
        f"$JS.API.CONSUMER.MSG.NEXT.{stream}.>",
        f"$JS.API.CONSUMER.DELETE.{stream}.>",
    ]
