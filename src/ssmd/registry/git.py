"""What ssmd asks of git: which commit, which files, one commit of exchanges/. Never a branch, never a remote.

git runs as a child with a deadline. Every path is relative to the workspace, which may be a folder within the repository.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from ssmd.errors import Misconfigured, Rejected, Unavailable
from ssmd.registry.tree import Tree, tree_of_files

ASK_TIMEOUT_S: Final = 20.0
COMMIT_TIMEOUT_S: Final = 300.0
"""A commit runs the repository's hooks."""
_UNDER_WAY: Final = {
    "MERGE_HEAD": "a merge",
    "CHERRY_PICK_HEAD": "a cherry-pick",
    "REVERT_HEAD": "a revert",
    "rebase-merge": "a rebase",
    "rebase-apply": "a rebase",
}


class Change(NamedTuple):
    """One commit that touched the registry."""

    commit: str
    ts_s: int
    author: str
    subject: str


class Git:
    """The repository that holds `workspace`, whose registry is the folder `registry` ("exchanges")."""

    def __init__(self, workspace: Path, registry: str = "exchanges") -> None:
        self._workspace = workspace
        self._registry = registry

    def is_there(self) -> bool:
        """Whether the workspace is in a repository (and git is installed)."""
        try:
            return self._run(["rev-parse", "--is-inside-work-tree"]).stdout.strip() == b"true"
        except (Misconfigured, Unavailable):
            return False

    def need(self) -> None:
        """Raise Misconfigured unless the workspace is in a repository."""
        done = self._run(["rev-parse", "--is-inside-work-tree"])
        if done.returncode != 0 or done.stdout.strip() != b"true":
            raise Misconfigured(f"{self._workspace} is not in a git repository", mend="git init")

    def head(self) -> str:
        """The commit checked out, "" before the first."""
        done = self._run(["rev-parse", "--verify", "--quiet", "HEAD^{commit}"])
        return done.stdout.decode().strip() if done.returncode == 0 else ""

    def prefix(self) -> str:
        """Path from the repository's top to the workspace, "" or with "/" at its end."""
        return self._output(["rev-parse", "--show-prefix"]).decode().rstrip("\n")

    def last_change(self, commit: str = "HEAD") -> str:
        """The commit up to `commit` that last changed the registry, "" = none."""
        done = self._run(["log", "-1", "--format=%H", commit, "--", self._registry])
        return done.stdout.decode().strip() if done.returncode == 0 else ""

    def changes(self, limit: int = 1000) -> list[Change]:
        """Commits that touched the registry, the newest first."""
        done = self._run(["log", f"-{limit}", "--format=%H%x00%ct%x00%an%x00%s", "--", self._registry])
        if done.returncode != 0:
            return []
        found = []
        for line in done.stdout.decode(errors="replace").splitlines():
            commit, ts_s, author, subject = line.split("\0", 3)
            found.append(Change(commit, int(ts_s), author, subject))
        return found

    def change_before(self, ts_s: int) -> str:
        """The registry's commit that stood last before the moment `ts_s` (UTC seconds), by committer's time; "" = none."""
        return next((change.commit for change in self.changes() if change.ts_s < ts_s), "")

    def dirty_files(self) -> list[str]:
        """Files of the registry that are not as HEAD has them, sorted."""
        output = self._output(["status", "--porcelain=v1", "-z", "--untracked-files=all", "--no-renames", "--", self._registry])
        prefix = self.prefix()
        return sorted(entry[3:].decode(errors="replace").removeprefix(prefix) for entry in output.split(b"\0") if entry)

    def tree(self, commit: str) -> Tree:
        """The registry as `commit` has it; without a file where it has none.

        Raises:
            Rejected: there is no such commit.
        """
        done = self._run(["ls-tree", "-r", "-z", commit, "--", f"{self._registry}/"])
        if done.returncode != 0:
            raise Rejected("no-such-commit", f"git knows no commit {commit}", mend="git fetch")
        entries: list[tuple[str, str]] = []
        for entry in done.stdout.split(b"\0"):
            head, _, path = entry.partition(b"\t")
            if head.startswith(b"100"):  # plain files
                entries.append((head.split(b" ")[2].decode(), path.decode(errors="replace")))
        blobs = self._blobs([number for number, _ in entries])
        names = (path.removeprefix(f"{self._registry}/") for _, path in entries)
        files = {
            name: payload
            for name, payload in zip(names, blobs, strict=True)
            if name.count("/") == 1 and not name.startswith(".")
        }
        return tree_of_files(self._workspace / self._registry, files)

    def _blobs(self, numbers: Sequence[str]) -> list[bytes]:
        if not numbers:
            return []
        output = self._output(["cat-file", "--batch"], given="".join(f"{number}\n" for number in numbers).encode())
        blobs: list[bytes] = []
        at = 0
        for _ in numbers:
            end = output.index(b"\n", at)
            size = int(output[at:end].split(b" ")[2])
            blobs.append(output[end + 1 : end + 1 + size])
            at = end + 2 + size
        return blobs

    def check_committable(self) -> None:
        """Refuse a tree in which a commit of the registry alone would be wrong or would surprise.

        Raises:
            Rejected: HEAD is detached, files are in conflict, or a merge or the like is under way.
        """
        unmerged = self._output(["diff", "--name-only", "--diff-filter=U", "-z"])  # of the whole repository
        conflicts = sorted(name.decode(errors="replace") for name in unmerged.split(b"\0") if name)
        if conflicts:
            raise Rejected(
                "git-conflict", f"files are in conflict: {', '.join(conflicts)}", mend="resolve them, or git merge --abort"
            )
        for file, what in _UNDER_WAY.items():
            path = self._output(["rev-parse", "--git-path", file]).decode().rstrip("\n")
            if (self._workspace / path).exists():
                raise Rejected("git-busy", f"{what} is under way", mend=f"finish it, or git {what.split()[-1]} --abort")
        if self._run(["symbolic-ref", "--quiet", "HEAD"]).returncode != 0:
            raise Rejected("git-detached", "HEAD is detached: a commit would belong to no branch", mend="git switch BRANCH")

    def commit(self, message: str) -> str:
        """Commit exactly the registry's changes, whatever else is changed or staged; the new commit. Never pushes.

        Raises:
            Rejected: git or a hook of the repository refused; what was staged before is staged again.
        """
        staged = self._output(["write-tree"]).decode().strip()
        paths = ["--", self._registry]
        self._output(["add", "--all", *paths])
        done = self._run(["commit", "--quiet", "--only", "--message", message, *paths], timeout_s=COMMIT_TIMEOUT_S)
        if done.returncode != 0:
            self._run(["read-tree", staged])
            words = (done.stderr + done.stdout).decode(errors="replace").strip() or "it gave no reason"
            raise Rejected("git-refused", f"git refused the commit: {words}", mend="mend that, then the same command again")
        return self.head()

    def bundle(self, path: Path) -> None:
        """Write all history of HEAD into one file. Raises Misconfigured where git cannot."""
        self._output(["bundle", "create", "--quiet", str(path.absolute()), "HEAD"], timeout_s=COMMIT_TIMEOUT_S)

    def unbundle(self, path: Path) -> None:
        """Make the workspace, an empty directory, a repository at the HEAD of a bundle. Raises Misconfigured."""
        self._output(["init", "--quiet"])
        self._output(["fetch", "--quiet", str(path.absolute()), "HEAD"], timeout_s=COMMIT_TIMEOUT_S)
        self._output(["reset", "--quiet", "--hard", "FETCH_HEAD"], timeout_s=COMMIT_TIMEOUT_S)

    def _output(self, arguments: Sequence[str], *, given: bytes | None = None, timeout_s: float = ASK_TIMEOUT_S) -> bytes:
        done = self._run(arguments, given=given, timeout_s=timeout_s)
        if done.returncode != 0:
            words = done.stderr.decode(errors="replace").strip() or f"status {done.returncode}"
            raise Misconfigured(f"git {arguments[0]} failed in {self._workspace}: {words}")
        return done.stdout

    def _run(
        self, arguments: Sequence[str], *, given: bytes | None = None, timeout_s: float = ASK_TIMEOUT_S
    ) -> subprocess.CompletedProcess[bytes]:
        options = ["-c", "core.quotePath=false", "-c", "core.pager=cat", "-c", "gc.auto=0", "--literal-pathspecs"]
        command = ["git", "-C", str(self._workspace), "--no-optional-locks", *options, *arguments]
        feed: Mapping[str, object] = {"stdin": subprocess.DEVNULL} if given is None else {"input": given}
        try:
            return subprocess.run(command, capture_output=True, timeout=timeout_s, check=False, **feed)  # type: ignore[call-overload,no-any-return]  # noqa: S603 - git with our arguments
        except FileNotFoundError:
            raise Misconfigured("git is not installed", mend="apt-get install git") from None
        except subprocess.TimeoutExpired:
            raise Unavailable(f"git {arguments[0]} did not end within {timeout_s:g} s") from None
