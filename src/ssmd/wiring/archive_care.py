"""Manifests after somebody took care of an archive, where no projector runs that would write them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ssmd.projections.manifest_sink import ManifestSink
from ssmd.projections.manifests import MANIFESTS
from ssmd.projections.rebuild import fold_in_memory

if TYPE_CHECKING:
    from ssmd.archive.storage import Storage
    from ssmd.streams.journal import Journal
    from ssmd.wiring.environment import ResolvedEnvironment


def has_projector(environment: ResolvedEnvironment) -> bool:
    """Whether a projector is to be expected: `ssmd up` runs, or the journal's server is not ours to run."""
    is_elsewhere = environment.document.journal.backend == "nats" and not environment.is_embedded("journal")
    return environment.run is not None or is_elsewhere


async def renew_manifests(environment: ResolvedEnvironment, journal: Journal, storage: Storage) -> None:
    """Write the manifests that differ from the journal, unless a projector does it.

    Raises:
        Unavailable: journal or storage are away.
    """
    if not has_projector(environment):
        await ManifestSink(await fold_in_memory(journal, [MANIFESTS]), storage).reconcile()
