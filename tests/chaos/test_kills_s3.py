"""Archivers killed by -9 around their uploads to a real S3 server; all points and random instants: soak_archive.py."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any

import pytest

from ssmd import crash_points
from ssmd.archive.storage_s3 import S3Access, S3Storage
from ssmd.clock import SystemClock
from ssmd.identifiers import system_random
from ssmd.services.chaos.plan import Strike
from ssmd.settings import variables
from ssmd.wiring.chaos import Chaos

ARCHIVERS = ("raw-archiver", "normalized-archiver")
POINTS = (crash_points.BEFORE_UPLOAD, crash_points.AFTER_UPLOAD_BEFORE_SEAL)


@pytest.mark.timeout(200)
async def test_killed_around_its_uploads_an_archive_on_s3_is_that_of_an_undisturbed_run(s3_server: Any, tmp_path: Path) -> None:
    bucket = S3Access(
        f"t-{secrets.token_hex(6)}", s3_server.access_key, s3_server.secret_key, s3_server.url, prefix="some/where/"
    )
    storage = S3Storage(bucket)
    await storage.put("made", b"")
    await storage.close()
    given = {
        **variables(),
        "SSMD_BUCKET_ACCESS_KEY": bucket.access_key,
        "SSMD_BUCKET_SECRET_KEY": bucket.secret_key,
    }
    chaos = Chaos(given, SystemClock(), system_random, lambda _: None, seed=5, rate=200, bucket=bucket)
    waves = [tuple(Strike(target, point) for target in ARCHIVERS) for point in POINTS]
    report = await chaos.run(tmp_path / "workspace", waves)
    assert [f"{check.name}: {check.detail}" for check in report.checks if not check.is_ok] == []
    assert len(report.strikes) == 4
    assert {check.name.split(",")[0] for check in report.checks} >= {"archive of raw", "archive of book"}
    assert not list((tmp_path / "workspace" / ".ssmd" / "chaos").glob("archive/*"))
