"""Which storage an environment document gives."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from ssmd.archive.storage_local import LocalStorage
from ssmd.archive.storage_s3 import S3Storage
from ssmd.errors import Misconfigured
from ssmd.registry.documents import KeyDefinition, Storage
from ssmd.settings import Workspace
from ssmd.wiring.backends import open_storage
from ssmd.wiring.environment import ResolvedEnvironment, resolve_environment

ROOT = Path(__file__).parents[2]


def environment_with(storage: Storage) -> ResolvedEnvironment:
    environment = resolve_environment(Workspace(ROOT), "kalshi-dev", "2026-11-22")
    keys = {**environment.document.keys, "bucket": KeyDefinition(type="opaque", fields=("access_key", "secret_key"))}
    changes: dict[str, Any] = {"storage": storage, "keys": keys}
    values = {name: getattr(environment, name) for name in environment.__dataclass_fields__}
    return ResolvedEnvironment(**{**values, "document": msgspec.structs.replace(environment.document, **changes)})


def test_local() -> None:
    assert isinstance(open_storage(environment_with(Storage()), {}), LocalStorage)


async def test_s3_with_the_credentials_of_its_key(s3_server: Any) -> None:
    settings = Storage(backend="s3", bucket="t-open-storage", url=s3_server.url, key="$key:bucket", prefix="one/")
    variables = {"SSMD_BUCKET_ACCESS_KEY": s3_server.access_key, "SSMD_BUCKET_SECRET_KEY": s3_server.secret_key}
    storage = open_storage(environment_with(settings), variables)
    assert isinstance(storage, S3Storage)
    await storage.put("a/b", b"1")
    assert [key async for key in storage.list()] == ["a/b"]
    await storage.close()
    above = open_storage(environment_with(msgspec.structs.replace(settings, prefix="")), variables)
    assert await above.get("one/a/b") == b"1"
    await above.close()


def test_s3_without_a_key_says_how_to_give_one() -> None:
    with pytest.raises(Misconfigured, match="gives no access_key and no secret_key") as found:
        open_storage(environment_with(Storage(backend="s3", bucket="b")), {})
    assert "storage.key: $key:NAME" in found.value.mend
