"""A Temporal server, reached: one client, with its errors as ssmd's."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from datetime import timedelta
from typing import Final

from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from ssmd.errors import Misconfigured, SsmdError, Unavailable

CONNECT_S: Final = 5.0
RPC_TIMEOUT: Final = timedelta(seconds=10)
NAMESPACE: Final = "ssmd"


def task_queue(env: str) -> str:
    """Where the workers of an environment take their work from."""
    return f"ssmd/{env}"


async def connect(address: str, namespace: str) -> Client:
    """A client of the server at `address` (HOST:PORT).

    Raises:
        Unavailable: it does not answer within CONNECT_S.
    """
    try:
        return await Client.connect(address, namespace=namespace, connect_timeout=timedelta(seconds=CONNECT_S))
    except RuntimeError as error:  # the driver's word for "no connection"
        raise Unavailable(
            f"Temporal at {address} does not answer: {_short(error)}", mend="ssmd up, or start Temporal"
        ) from None
    except RPCError as error:
        raise translated(error, address) from None


def translated(error: RPCError, what: str) -> SsmdError:
    """The driver's error as ssmd's."""
    if error.status in {RPCStatusCode.NOT_FOUND, RPCStatusCode.INVALID_ARGUMENT, RPCStatusCode.PERMISSION_DENIED}:
        return Misconfigured(f"Temporal refuses {what}: {error.message}")
    return Unavailable(f"Temporal did not answer on {what}: {_short(error)}", mend="try again")


@contextmanager
def translating(what: str) -> Generator[None]:
    """Errors of the block's calls become ssmd's; `what` was asked."""
    try:
        yield
    except RPCError as error:
        raise translated(error, what) from None


def _short(error: Exception) -> str:
    return str(error).partition("\n")[0][:200]
