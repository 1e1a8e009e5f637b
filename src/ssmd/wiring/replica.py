"""The second place of an environment's archive, where `replicate` names one: the same keys in another storage.

ssmd does not copy there: that is the work of the bucket's own replication, rclone or the like. It reads there: before
something is pruned, and to repair from.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import msgspec

from ssmd.errors import Misconfigured
from ssmd.wiring.backends import open_storage

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ssmd.archive.storage import Storage
    from ssmd.wiring.environment import ResolvedEnvironment


def open_replica(environment: ResolvedEnvironment, variables: Mapping[str, str]) -> Storage | None:
    """The replica's storage, None = the environment names none; nothing is connected before it is used. `close` it.

    Raises:
        Misconfigured: it is the storage itself; or as `open_storage`.
    """
    settings = environment.document.replicate
    if settings is None:
        return None
    if settings == environment.document.storage:
        raise Misconfigured(
            f"replicate of {environment.name} is its storage itself, which proves nothing",
            mend=f"name another bucket or path in exchanges/environments/{environment.name}.yaml",
        )
    document = msgspec.structs.replace(environment.document, storage=settings)
    return open_storage(replace(environment, document=document), variables)
