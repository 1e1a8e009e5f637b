"""The storage port on S3 and what speaks its protocol: the home of aioboto3.

An object appears when its one PutObject, or the CompleteMultipartUpload of its parts, is answered: a writer killed
before leaves nothing under the key (and unfinished uploads, which a bucket's lifecycle rule removes). `put_file` is
conditional (`If-None-Match: *`): of many writers one creates. Every body carries its SHA-256, which the server checks.

A server has to know conditional writes: AWS S3 (since 2024-11), SeaweedFS, MinIO and Ceph do. One that ignores the
condition lets the second writer win, so `check` tries it on a probe object before a process relies on it.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple, TypeVar

from ssmd.archive.storage import CHUNK_BYTES, LIST_KEYS, ObjectStat, PutResult, check_key, hash_file, no_such_object
from ssmd.errors import Conflict, Misconfigured, Unavailable
from ssmd.identifiers import RandomBytes, system_random

PART_BYTES: Final = 8 << 20
"""A file of at most this size is one request, a larger one is parts of this size (S3 asks for >= 5 MiB)."""
ATTEMPTS_MAX: Final = 4
CONNECT_S: Final = 5.0
READ_S: Final = 30.0  # the longest silence of a server in the middle of a request
_FIRST_WAIT_S: Final = 0.1
_PROBE_KEY: Final = "ssmd-probe/conditional-put"
_EXISTS: Final = frozenset({"PreconditionFailed", "412"})
_ABSENT: Final = frozenset({"NoSuchKey", "404", "NotFound"})
_BUSY: Final = frozenset({"ConditionalRequestConflict", "OperationAborted"})
_DENIED: Final = frozenset({"AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "403"})

Answer = TypeVar("Answer")


class S3Access(NamedTuple):
    """Where the bucket is and what opens it. `url` "" = AWS itself. The secrets show in no text made of this.

    `prefix`: put before every key ("" or ending in "/"), so that one bucket may hold more than one archive.
    """

    bucket: str
    access_key: str
    secret_key: str
    url: str = ""
    region: str = "us-east-1"
    prefix: str = ""

    def __repr__(self) -> str:
        return f"S3Access(bucket={self.bucket!r}, url={self.url!r}, region={self.region!r}, prefix={self.prefix!r})"


class S3Storage:
    """Objects of one bucket. Connects when first used; `close` it in the same loop.

    Args:
        part_bytes: see `PART_BYTES`; tests make it small where the server allows that.
        read_s: see `READ_S`.
    """

    def __init__(
        self,
        access: S3Access,
        *,
        random: RandomBytes = system_random,
        part_bytes: int = PART_BYTES,
        read_s: float = READ_S,
        attempts_max: int = ATTEMPTS_MAX,
    ) -> None:
        self._access = access
        self._random = random
        self._part_bytes = part_bytes
        self._read_s = read_s
        self._attempts_max = attempts_max
        self._stack = AsyncExitStack()
        self._opening = asyncio.Lock()
        self._client: Any = None

    # The port

    async def put_file(self, key: str, path: Path) -> PutResult:
        check_key(key)
        if await self._create(key, path):
            return "created"
        there, ours = await self.stat(key), await asyncio.to_thread(hash_file, path)
        if there == ours:
            return "identical"
        found = "nothing" if there is None else f"{there.size_bytes} bytes of sha256 {there.sha256}"
        raise Conflict(f"object {key!r} has other content than {path}: found {found}, expected sha256 {ours.sha256}")

    async def put(self, key: str, data: bytes) -> None:
        check_key(key)
        await self._call(key, lambda client: client.put_object(**self._at(key), Body=data, ChecksumSHA256=_digest(data)))

    async def get(self, key: str) -> bytes | None:
        check_key(key)
        body = await self._first_piece(key)
        if body is None:
            return None
        return b"".join([piece async for piece in self._pieces(key, body)])

    async def read(self, key: str) -> AsyncIterator[bytes]:
        check_key(key)
        body = await self._first_piece(key)
        if body is None:
            raise no_such_object(key)
        async for piece in self._pieces(key, body):
            yield piece

    async def read_range(self, key: str, start: int, size: int) -> bytes | None:
        check_key(key)
        try:
            return await self._call(key, partial(_get_whole, {**self._at(key), "Range": f"bytes={start}-{start + size - 1}"}))
        except _Absent:
            return None

    async def stat(self, key: str) -> ObjectStat | None:
        check_key(key)
        body = await self._first_piece(key)
        if body is None:
            return None
        state, size = hashlib.sha256(), 0
        async for piece in self._pieces(key, body):
            state.update(piece)
            size += len(piece)
        return ObjectStat(state.hexdigest(), size)

    async def list(self, prefix: str = "") -> AsyncIterator[str]:
        # Sorted here: not every server sorts by bytes where a name is the beginning of another.
        keys: list[str] = []
        token: dict[str, str] = {}
        while True:
            asked = {"Bucket": self._access.bucket, "Prefix": self._access.prefix + prefix, "MaxKeys": LIST_KEYS, **token}
            page = await self._call(prefix, partial(_list_page, asked))
            keys += [found["Key"].removeprefix(self._access.prefix) for found in page.get("Contents", ())]
            if not page.get("IsTruncated"):
                break
            token = {"ContinuationToken": page["NextContinuationToken"]}
        for key in sorted(key for key in keys if key.startswith(prefix)):
            yield key

    async def delete(self, key: str) -> None:
        check_key(key)
        await self._call(key, lambda client: client.delete_object(**self._at(key)))

    async def close(self) -> None:
        """Let go of the connections. Safe to call twice."""
        self._client = None
        await self._stack.aclose()

    async def check(self) -> None:
        """As the port says. A bucket that is not there is not made: a wrong name would make an archive of its own."""
        try:
            await self._call("", partial(_list_page, {"Bucket": self._access.bucket, "MaxKeys": 1}))
            await self.put(_PROBE_KEY, b"1")
            is_overwritten = await self._put_if_absent(_PROBE_KEY, b"2")
        except _Refused as error:
            raise Misconfigured(
                error.message, mend=error.mend or "check storage.url, storage.region and storage.bucket"
            ) from error
        if is_overwritten:
            raise Misconfigured(
                f"{self._place()}: the server overwrites an object although told not to (If-None-Match): two archivers "
                "could undo each other's work",
                mend="use a server with conditional writes: AWS S3, SeaweedFS, MinIO, Ceph",
            )

    # Writing

    async def _create(self, key: str, path: Path) -> bool:
        """Whether the object was made; False = there was one."""
        try:
            source = await asyncio.to_thread(path.open, "rb")
        except OSError as error:
            raise Unavailable(f"{path} cannot be read: {error.strerror}") from error
        with source:
            first = await asyncio.to_thread(source.read, self._part_bytes + 1)
            if len(first) <= self._part_bytes:
                return await self._put_if_absent(key, first)
            if await self._exists(key):
                return False  # before the whole file is sent in vain
            await asyncio.to_thread(source.seek, 0)
            return await self._upload(key, source)

    async def _put_if_absent(self, key: str, data: bytes) -> bool:
        try:
            await self._call(
                key,
                lambda client: client.put_object(**self._at(key), Body=data, ChecksumSHA256=_digest(data), IfNoneMatch="*"),
            )
        except _AlreadyThere:
            return False
        return True

    async def _upload(self, key: str, source: BinaryIO) -> bool:
        """As `_put_if_absent`, in parts read one at a time."""
        at = self._at(key)
        made = await self._call(key, lambda client: client.create_multipart_upload(**at, ChecksumAlgorithm="SHA256"))
        upload = {**at, "UploadId": made["UploadId"]}
        try:
            parts: list[dict[str, Any]] = []
            while data := await asyncio.to_thread(source.read, self._part_bytes):
                part = {"PartNumber": len(parts) + 1, "ChecksumSHA256": await asyncio.to_thread(_digest, data)}
                sent = await self._call(key, partial(_send_part, {**upload, **part}, data))
                parts.append({**part, "ETag": sent["ETag"]})
            whole = {**upload, "MultipartUpload": {"Parts": parts}, "IfNoneMatch": "*"}
            made = await self._call(key, lambda client: client.complete_multipart_upload(**whole))
        except BaseException as error:
            with suppress(Unavailable, Conflict):  # what is left is no object; the first error is what counts
                await self._call(key, lambda client: client.abort_multipart_upload(**upload))
            if isinstance(error, _AlreadyThere):
                return False
            raise
        # SeaweedFS lets two that complete in the same moment both through now and then, and keeps the later one: look again.
        await self._wait(1)
        return bool(made["ETag"] == (await self._call(key, lambda client: client.head_object(**at)))["ETag"])

    async def _exists(self, key: str) -> bool:
        try:
            await self._call(key, lambda client: client.head_object(**self._at(key)))
        except _Absent:
            return False
        return True

    # Reading

    async def _first_piece(self, key: str) -> dict[str, Any] | None:
        try:
            answer: dict[str, Any] = await self._call(key, lambda client: client.get_object(**self._at(key)))
        except _Absent:
            return None
        return answer

    async def _pieces(self, key: str, answer: dict[str, Any]) -> AsyncIterator[bytes]:
        """The body; cut in the middle it is asked for again from there on, as long as it is the same object."""
        size, etag = int(answer["ContentLength"]), answer["ETag"]
        at = failures = 0
        while True:
            try:
                body = answer["Body"]
                async with body:
                    while piece := await self._translated(key, body.read(CHUNK_BYTES)):
                        yield piece
                        at += len(piece)
                if at >= size:
                    return
                cut = Unavailable(f"{self._place(key)}: {at} of {size} bytes came")
            except Unavailable as error:
                cut = error
            failures += 1
            if failures >= self._attempts_max:
                raise cut
            await self._wait(failures)
            rest = {**self._at(key), "Range": f"bytes={at}-", "IfMatch": etag}
            try:
                answer = await self._call(key, partial(_get_part, rest))
            except (_AlreadyThere, _Absent) as error:
                raise Conflict(f"object {key!r} was replaced while it was read") from error

    # The driver

    def _at(self, key: str) -> dict[str, str]:
        return {"Bucket": self._access.bucket, "Key": self._access.prefix + key}

    def _place(self, key: str = "") -> str:
        where = self._access.url or f"AWS S3 ({self._access.region})"
        return f"bucket {self._access.bucket} at {where}{f', object {key!r}' if key else ''}"

    async def _open(self) -> Any:
        async with self._opening:
            if self._client is None:
                try:
                    self._client = await self._stack.enter_async_context(_client_of(self._access, self._read_s))
                except ValueError as error:
                    raise Misconfigured(f"storage.url: {error}", mend="http://HOST:PORT") from error
            return self._client

    async def _call(self, key: str, ask: Callable[[Any], Awaitable[Answer]]) -> Answer:
        """What the server answers; asked again, with growing jittered waits, where that may help."""
        attempt = 0
        while True:
            attempt += 1
            try:
                return await self._translated(key, ask(await self._open()))
            except _Refused:
                raise
            except Unavailable:
                if attempt >= self._attempts_max:
                    raise
            await self._wait(attempt)

    async def _wait(self, attempt: int) -> None:
        jitter = 0.5 + int.from_bytes(self._random(2), "big") / 131072
        await asyncio.sleep(_FIRST_WAIT_S * 2 ** (attempt - 1) * jitter)

    async def _translated(self, key: str, answering: Awaitable[Answer]) -> Answer:
        """The driver's errors as ours; its texts name hosts and keys, never credentials."""
        from aiohttp import ClientError as ConnectionFailed  # noqa: PLC0415 - the driver's own driver: slow
        from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415 - slow, and for this backend alone

        try:
            return await answering
        except ClientError as error:
            told = error.response.get("Error", {})
            code, text = str(told.get("Code", "")), str(told.get("Message", ""))
            message = f"{self._place(key)}: {code} {text}".rstrip()
            if code in _EXISTS:
                raise _AlreadyThere(message) from None
            if code in _ABSENT:
                raise _Absent(message) from None
            if code == "NoSuchBucket":
                raise _Refused(message, mend=f"make the bucket {self._access.bucket}") from None
            if code in _DENIED:
                raise _Refused(message, mend="check the key that storage.key names, and what it may do") from None
            status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
            if 400 <= status < 500 and status not in (408, 429) and code not in _BUSY:
                raise _Refused(message) from None
            raise Unavailable(message) from None
        except (BotoCoreError, ConnectionFailed, OSError, TimeoutError) as error:
            # Not chained: a request in a traceback would show its signature.
            raise Unavailable(
                f"{self._place(key)}: {type(error).__name__}: {error}", mend="check storage.url, and that the server runs"
            ) from None


class _Refused(Unavailable):
    """No use to ask again."""


class _AlreadyThere(_Refused):
    """A condition did not hold."""


class _Absent(_Refused):
    """There is no such object."""


def _client_of(access: S3Access, read_s: float) -> Any:
    """An S3 client that depends on `access` alone: neither AWS variables nor files of this user change it."""
    try:
        import aioboto3  # noqa: PLC0415 - slow, and for this backend alone
        from aiobotocore.session import AioSession  # noqa: PLC0415 - as above
        from botocore.config import Config  # noqa: PLC0415 - as above
    except ImportError as error:
        raise Misconfigured(
            f"storage on S3 needs a package that is not installed: {error.name}", mend="pip install 'ssmd[s3]'"
        ) from error

    session = AioSession()
    for variable in ("profile", "config_file", "credentials_file", "ca_bundle", "region"):
        session.session_var_map[variable] = (None, None, None, None)
    session.set_config_variable("config_file", os.devnull)
    session.set_config_variable("credentials_file", os.devnull)
    config = Config(
        signature_version="s3v4",
        s3={"addressing_style": "path"},
        connect_timeout=CONNECT_S,
        read_timeout=read_s,
        retries={"total_max_attempts": 1},
        max_pool_connections=16,
        # Bodies carry their SHA-256 by our own hand; more than that older servers do not understand.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        ignore_configured_endpoint_urls=True,
    )
    return aioboto3.Session(botocore_session=session).client(
        "s3",
        endpoint_url=access.url or None,
        region_name=access.region,
        aws_access_key_id=access.access_key,
        aws_secret_access_key=access.secret_key,
        config=config,
    )


async def _list_page(asked: dict[str, Any], client: Any) -> dict[str, Any]:
    return dict(await client.list_objects_v2(**asked))


async def _get_whole(part: dict[str, str], client: Any) -> bytes:
    async with (await client.get_object(**part))["Body"] as body:
        return bytes(await body.read())


async def _send_part(part: dict[str, Any], data: bytes, client: Any) -> dict[str, Any]:
    return dict(await client.upload_part(**part, Body=data))


async def _get_part(rest: dict[str, Any], client: Any) -> dict[str, Any]:
    return dict(await client.get_object(**rest))


def _digest(data: bytes) -> str:
    return base64.b64encode(hashlib.sha256(data).digest()).decode("ascii")
