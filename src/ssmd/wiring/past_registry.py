"""The registry as it was on a day."""

from __future__ import annotations

from ssmd.errors import Rejected
from ssmd.registry.git import Git
from ssmd.registry.tree import Tree, read_tree
from ssmd.settings import Workspace
from ssmd.wiring.config_history import day_bounds


def tree_on(workspace: Workspace, date: str) -> tuple[Tree, str]:
    """(files, commit) of the registry at the end of the UTC day `date`; outside of git those of now, and "".

    Raises:
        Rejected: git had none then.
    """
    git = Git(workspace.root, workspace.registry.name)
    if not git.is_there():
        return read_tree(workspace.registry), ""
    commit = git.change_before(day_bounds(date)[1] // 1_000_000_000)
    if not commit:
        raise Rejected("no-registry-then", f"git has no registry of {date} or before", mend="ssmd commit, or a later --as-of")
    return git.tree(commit), commit
