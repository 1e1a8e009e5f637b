"""Sealed Secrets: values that only a cluster's controller can open, so that they may stand in git.

One value: base64 of uint16-BE len(R) | R | A. R = RSA-OAEP (SHA-256, MGF1-SHA-256, label) of a random 32-byte key;
A = AES-256-GCM under it, nonce of 12 zero bytes (the key is used once), no further data, tag at the end. The label binds
the scope: "namespace/name" (strict), "namespace" (namespace-wide), "" (cluster-wide).
Source: bitnami-labs/sealed-secrets, pkg/crypto/crypto.go and pkg/apis/sealedsecrets/v1alpha1, v0.36.6, read 2026-11.
"""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import json
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from ssmd.errors import Malformed, Misconfigured
from ssmd.identifiers import RandomBytes
from ssmd.keys.secret import Secret

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.padding import OAEP
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey

SCOPES: Final = ("strict", "namespace-wide", "cluster-wide")
_SESSION_KEY_BYTES: Final = 32
_NONCE: Final = bytes(12)
_ANNOTATION: Final = "sealedsecrets.bitnami.com/"
_NAME: Final = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?")


class SealedName(NamedTuple):
    """Which Secret it becomes, and how tightly the values are bound to that."""

    name: str
    namespace: str
    scope: str = "strict"

    @property
    def label(self) -> bytes:
        """What is authenticated with every value."""
        match self.scope:
            case "strict":
                return f"{self.namespace}/{self.name}".encode()
            case "namespace-wide":
                return self.namespace.encode()
            case _:
                return b""


def load_certificate(pem: bytes, now_ns: int) -> RSAPublicKey:
    """The public key of the cluster's certificate.

    Raises:
        Malformed: it is no certificate of an RSA key.
        Misconfigured: it has expired.
    """
    from cryptography import x509  # noqa: PLC0415 - 50 ms that most commands need not spend
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey as Rsa  # noqa: PLC0415

    mend = "kubeseal --fetch-cert > CERTIFICATE.pem"
    try:
        certificate = x509.load_pem_x509_certificate(pem)
        key = certificate.public_key()
    except (ValueError, UnsupportedAlgorithm):
        raise Malformed("the cluster's certificate cannot be read; expected PEM of an X.509 certificate", mend=mend) from None
    if not isinstance(key, Rsa):
        raise Malformed(f"the cluster's certificate holds a {type(key).__name__}; expected an RSA key", mend=mend)
    ends = certificate.not_valid_after_utc
    if ends <= dt.datetime.fromtimestamp(now_ns // 1_000_000_000, dt.UTC):
        raise Misconfigured(f"the cluster's certificate expired at {ends:%Y-%m-%d %H:%M} UTC", mend=mend)
    return key


def seal(key: RSAPublicKey, label: bytes, value: bytes, random: RandomBytes) -> str:
    """One sealed value."""
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415 - as above

    session_key = random(_SESSION_KEY_BYTES)
    locked = key.encrypt(session_key, _oaep(label))
    box = AESGCM(session_key).encrypt(_NONCE, value, None)
    return base64.b64encode(len(locked).to_bytes(2, "big") + locked + box).decode("ascii")


def open_sealed(keys: Sequence[RSAPrivateKey], label: bytes, sealed: str) -> bytes:
    """The value in `sealed`, by the first of the controller's `keys` that opens it.

    Raises:
        Malformed: it has not the form, or no key opens it under this label.
    """
    from cryptography.exceptions import InvalidTag  # noqa: PLC0415 - as above
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415

    try:
        raw = base64.b64decode(sealed, validate=True)
    except (binascii.Error, ValueError):
        raise Malformed("a sealed value is not base64") from None
    size = int.from_bytes(raw[:2], "big")
    locked, box = raw[2 : 2 + size], raw[2 + size :]
    if len(locked) < size or not size:
        raise Malformed(f"a sealed value of {len(raw)} bytes is cut short")
    for key in keys:
        try:
            session_key = key.decrypt(locked, _oaep(label))
            return AESGCM(session_key).decrypt(_NONCE, box, None)
        except (ValueError, InvalidTag):
            continue
    raise Malformed("no key opens the sealed value: another cluster's, or bound to another name or namespace")


def load_controller_key(pem: bytes) -> RSAPrivateKey:
    """A controller's private key. Raises Malformed; the message holds nothing of the input."""
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415 - as above
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey as Rsa  # noqa: PLC0415
    from cryptography.hazmat.primitives.serialization import load_pem_private_key  # noqa: PLC0415

    try:
        key = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise Malformed("the controller's key cannot be read; expected an unencrypted PEM of an RSA key") from None
    if not isinstance(key, Rsa):
        raise Malformed("the controller's key is no RSA key")
    return key


def sealed_secret(name: SealedName, values: Mapping[str, Secret], key: RSAPublicKey, random: RandomBytes) -> dict[str, Any]:
    """The SealedSecret object of `values`, as kubeseal writes it.

    Raises:
        Misconfigured: no value, an unknown scope, or a name that Kubernetes does not take.
    """
    if not values:
        raise Misconfigured("a SealedSecret needs at least one value")
    if name.scope not in SCOPES:
        raise Misconfigured(f"there is no scope {name.scope!r}", mend=f"one of: {', '.join(SCOPES)}")
    if not _NAME.fullmatch(name.name) or not _NAME.fullmatch(name.namespace):
        raise Misconfigured("a SealedSecret needs a name and a namespace of a-z, 0-9, - and .")
    metadata: dict[str, Any] = {"name": name.name, "namespace": name.namespace}
    if name.scope != "strict":
        metadata["annotations"] = {f"{_ANNOTATION}{name.scope}": "true"}
    encrypted = {field: seal(key, name.label, value.reveal().encode(), random) for field, value in sorted(values.items())}
    return {
        "apiVersion": "bitnami.com/v1alpha1",
        "kind": "SealedSecret",
        "metadata": metadata,
        "spec": {"encryptedData": encrypted, "template": {"metadata": dict(metadata), "type": "Opaque"}},
    }


def manifest_text(document: Mapping[str, Any], heading: str) -> str:
    """The object as YAML: every scalar is a JSON string, which is YAML too. `heading`: comment lines with newlines."""
    return heading + "".join(_lines(document, 0))


def _lines(value: Mapping[str, Any], indent: int) -> list[str]:
    lines: list[str] = []
    for key, part in value.items():
        shown = key if re.fullmatch(r"[A-Za-z][A-Za-z0-9_./-]*", key) else json.dumps(key)
        if isinstance(part, Mapping):
            lines += [f"{' ' * indent}{shown}:\n", *_lines(part, indent + 2)]
        else:
            lines.append(f"{' ' * indent}{shown}: {json.dumps(part)}\n")
    return lines


def _oaep(label: bytes) -> OAEP:
    from cryptography.hazmat.primitives import hashes  # noqa: PLC0415 - as above
    from cryptography.hazmat.primitives.asymmetric import padding  # noqa: PLC0415

    return padding.OAEP(mgf=padding.MGF1(hashes.SHA256()), algorithm=hashes.SHA256(), label=label)
