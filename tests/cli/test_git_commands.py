"""`ssmd diff`, `ssmd commit` and `--as-of` over real repositories."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

Ssmd = Any
DEV = "exchanges/environments/kalshi-dev.yaml"
FEED = "exchanges/feeds/kalshi.yaml"


def git(root: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=Anna", "-c", "user.email=anna@example.org", "-c", "commit.gpgsign=false"]
    done = subprocess.run(
        ["git", "-C", str(root), *identity, *arguments], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(autouse=True)
def _identity(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{name}_NAME", "Anna")
        monkeypatch.setenv(f"GIT_{name}_EMAIL", "anna@example.org")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")


@pytest.fixture(params=["", "deep/in it"], ids=["top", "sub-folder"])
def repository(workspace: Path, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The workspace in git, once as the top, once as a folder; with a committed registry and an unrelated dirty file."""
    root = workspace
    if request.param:
        root = tmp_path / "repository" / request.param
        root.parent.mkdir(parents=True)
        workspace.rename(root)
        monkeypatch.chdir(root)
    top = tmp_path / "repository" if request.param else workspace
    git(top, "init", "-q", "-b", "main")
    (top / "other.txt").write_text("one\n")
    git(top, "add", ".")
    git(top, "commit", "-q", "-m", "First")
    (top / "other.txt").write_text("two\n")
    (top / "untracked.txt").write_text("x\n")
    return root


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_diff_tells_fields_environments_streams_keys_and_days(ssmd: Ssmd, repository: Path) -> None:
    assert ssmd("diff") == (0, "", "nothing changed in meaning\n")
    edit(repository / DEV, "feed: kalshi", "retention: {raw_days: 30}  # a month\nfeed: kalshi")
    edit(
        repository / "exchanges/environments/kalshi-prod.yaml",
        "tickers_max: 200",
        "tickers_max: 500\ntransport: {max_age_hours: 24}",
    )
    edit(repository / FEED, "effective_to: 2026-03-11", "effective_to: 2026-03-10")
    edit(repository / "exchanges/environments/kalshi-demo.yaml", "name: kalshi-demo", "name:  kalshi-demo  # the demo")
    called = ssmd("diff", "-o", "json")
    assert called.status == 1
    found = json.loads(called.out)
    assert [(one["document"], one["field"], one["old"], one["new"]) for one in found["fields"]] == [
        ("environments/kalshi-dev.yaml", "retention.raw_days", 0, 30),
        ("environments/kalshi-prod.yaml", "capture.tickers_max", 200, 500),
        ("environments/kalshi-prod.yaml", "transport.max_age_hours", 72, 24),
        ("feeds/kalshi.yaml", "versions[2021-07-01].effective_to", "2026-03-11", "2026-03-10"),
    ]
    assert found["texts"] == ["environments/kalshi-demo.yaml"]
    impacts = {one["environment"]: one for one in found["environments"]}
    window = "2021-07-01..2026-03-10"
    assert {name: (one["must_roll"], one["streams"], one["days"][: len(window)]) for name, one in impacts.items()} == {
        "kalshi-demo": (False, [], window),
        "kalshi-dev": (False, [], window),
        "kalshi-prod": (True, ["kalshi-prod-raw", "kalshi-prod-market"], window),
    }
    assert impacts["kalshi-prod"]["reasons"] == ["capture.tickers_max", "transport.max_age_hours"]
    edit(repository / DEV, "source: generated", "rotation_days: 30")
    (dev,) = (one for one in json.loads(ssmd("diff", "-o", "json").out)["environments"] if one["environment"] == "kalshi-dev")
    assert (dev["keys"], dev["reasons"]) == (["kalshi"], ["keys.kalshi.source"])


def test_a_change_of_line_ends_means_nothing(ssmd: Ssmd, repository: Path) -> None:
    for path in (repository / "exchanges").glob("*/*"):
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert ssmd("validate").status == 0
    called = ssmd("diff")
    assert (called.status, called.err.splitlines()[-1]) == (0, "nothing changed in meaning")


def test_commit_takes_the_registry_alone(ssmd: Ssmd, repository: Path) -> None:
    top = Path(git(repository, "rev-parse", "--show-toplevel").strip())
    (top / "staged.txt").write_text("x\n")
    git(top, "add", "staged.txt")
    assert ssmd("commit", "-m", "Nothing") == (0, "", "nothing to commit\n")
    assert ssmd("env", "update", "kalshi-dev", "--set", "retention.raw_days=30").status == 0
    (repository / "exchanges/feeds/.gitkeep").write_text("")
    assert ssmd("commit", "-m", "Dry", "--dry-run").err.splitlines()[-1] == "would commit exchanges/feeds/.gitkeep"
    before = git(top, "rev-parse", "HEAD")
    called = ssmd("commit", "-m", "Keep a month")
    assert called.status == 0
    assert git(top, "log", "-1", "--format=%s%n%P").split("\n")[:2] == ["Keep a month", before.strip()]
    changed = [line for line in git(top, "show", "--name-only", "--format=", "HEAD").splitlines() if line]
    prefix = git(repository, "rev-parse", "--show-prefix").strip()
    assert changed == [f"{prefix}exchanges/environments/kalshi-dev.yaml", f"{prefix}exchanges/feeds/.gitkeep"]
    assert git(top, "status", "--porcelain").splitlines() == [" M other.txt", "A  staged.txt", "?? untracked.txt"]


def test_commit_refuses_and_changes_nothing(ssmd: Ssmd, repository: Path) -> None:
    top = Path(git(repository, "rev-parse", "--show-toplevel").strip())
    head = git(top, "rev-parse", "HEAD")
    edit(repository / DEV, "markets: 20", "markets: x")
    assert ssmd("commit", "-m", "Broken").status == 2
    edit(repository / DEV, "markets: x", "markets: 30")
    hook = top / ".git/hooks/pre-commit"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\necho no such day >&2\nexit 1\n")
    hook.chmod(0o755)
    status = git(top, "status", "--porcelain")
    called = ssmd("commit", "-m", "Hooked")
    assert called == (
        1,
        "",
        (
            "committing exchanges/environments/kalshi-dev.yaml\nerror: git refused the commit: no such day\n"
            "  try: mend that, then the same command again\n"
        ),
    )
    assert git(top, "status", "--porcelain") == status
    hook.unlink()
    git(top, "checkout", "-q", "--detach")
    assert ssmd("commit", "-m", "Detached").err == (
        "error: HEAD is detached: a commit would belong to no branch\n  try: git switch BRANCH\n"
    )
    git(top, "checkout", "-q", "main")
    assert git(top, "rev-parse", "HEAD") == head
    assert ssmd("commit", "-m", " ").status == 2


def test_commit_refuses_a_tree_in_conflict(ssmd: Ssmd, repository: Path) -> None:
    top = Path(git(repository, "rev-parse", "--show-toplevel").strip())
    for branch, text in (("side", "side\n"), ("main", "main\n")):
        git(top, "checkout", "-q", *(["-b", branch] if branch == "side" else [branch]))
        (top / "other.txt").write_text(text)
        git(top, "commit", "-q", "-m", branch, "other.txt")
    done = subprocess.run(["git", "-C", str(top), "merge", "-q", "side"], capture_output=True, check=False, timeout=60)
    assert done.returncode != 0
    edit(repository / DEV, "markets: 20", "markets: 30")
    called = ssmd("commit", "-m", "In the middle")
    assert called == (1, "", "error: files are in conflict: other.txt\n  try: resolve them, or git merge --abort\n")
    (top / "other.txt").write_text("both\n")
    git(top, "add", "other.txt")
    assert ssmd("commit", "-m", "In the middle").err.startswith("error: a merge is under way\n")


def test_outside_of_git_diff_and_commit_say_so_and_the_rest_works(ssmd: Ssmd, workspace: Path) -> None:
    for arguments in (("diff",), ("commit", "-m", "x")):
        called = ssmd(*arguments)
        assert called == (2, "", f"error: {workspace} is not in a git repository\n  try: git init\n")
    assert ssmd("env", "update", "kalshi-dev", "--set", "retention.raw_days=30").status == 0
    assert ssmd("env", "show", "kalshi-dev", "--as-of", "2026-05-14").status == 0


def test_show_as_of_a_day_is_what_git_had_then(ssmd: Ssmd, repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for date, count in (("2030-01-01T12:00:00Z", 30), ("2030-01-03T23:59:59Z", 40), ("2030-01-04T00:00:00Z", 50)):
        monkeypatch.setenv("GIT_COMMITTER_DATE", date)
        ssmd("env", "update", "kalshi-dev", "--set", f"capture.simulator.markets={count}")
        assert ssmd("commit", "-m", f"{count} markets").status == 0

    def markets(date: str) -> int:
        shown = json.loads(ssmd("env", "show", "kalshi-dev", "--as-of", date, "-o", "json").out)
        return int(shown["environment"]["capture"]["simulator"]["markets"])

    assert [markets(f"2030-01-0{day}") for day in (1, 2, 3, 4)] == [30, 30, 40, 50]
    assert ssmd("env", "show", "kalshi-dev", "--as-of", "2020-01-01").err.startswith("error: git has no registry of 2020-01-01")


def test_github_annotations_name_files_from_the_top(ssmd: Ssmd, repository: Path) -> None:
    edit(repository / DEV, "markets: 20", "markets: x")
    prefix = git(repository, "rev-parse", "--show-prefix").strip()
    assert ssmd("validate", "--format", "github").out.startswith(
        f"::error file={prefix}{DEV},line=16,col=14,title=wrong-type::"
    )
