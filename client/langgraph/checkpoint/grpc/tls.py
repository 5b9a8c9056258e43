"""TLS as a saver speaks it: what it needs, looked at before it is used, and why a connection fails."""

from __future__ import annotations

import binascii
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from langgraph.checkpoint.grpc.errors import InvalidArgumentError

if TYPE_CHECKING:
    import grpc

_BLOCK = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----(.*?)-----END \1-----", re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class TlsOptions:
    """Certificates and keys for TLS. Each field holds PEM, as bytes.

    Raises:
        InvalidArgumentError: A field holds none, or one half of a client's certificate is missing.
    """

    root_certificates: bytes | None = None
    """The certificates of the authorities to trust; None: those that grpc trusts by default."""
    private_key: bytes | None = field(default=None, repr=False)
    """The client's own key, for mutual TLS."""
    certificate_chain: bytes | None = None
    """The client's own certificate, for mutual TLS."""

    def __new__(cls, *given: object, **fields: object) -> Self:
        """Refuses what is given without a name: Python's own words would not say what to give."""
        if given:
            raise InvalidArgumentError(
                "tls: TlsOptions takes its fields by name, such as "
                "TlsOptions(root_certificates=Path(...).read_bytes())",
                field="tls",
            )
        return super().__new__(cls)

    def __post_init__(self) -> None:
        self._check("root_certificates", "certificate", "CERTIFICATE")
        self._check("certificate_chain", "certificate", "CERTIFICATE")
        self._check("private_key", "private key", "PRIVATE KEY")
        if (self.private_key is None) != (self.certificate_chain is None):
            # grpc would end the process.
            missing = "private_key" if self.private_key is None else "certificate_chain"
            raise InvalidArgumentError(
                f"tls: private_key and certificate_chain belong together, and {missing} is missing", field="tls"
            )

    def _check(self, name: str, what: str, label: str) -> None:
        """Raises if a field isn't PEM. The message doesn't quote it: it may be a key."""
        content = getattr(self, name)
        if content is None:
            return
        if not isinstance(content, bytes):
            raise InvalidArgumentError(
                f"tls: {name} must be PEM as bytes, not {type(content).__name__}; a file's are Path(...).read_bytes()",
                field="tls",
            )
        if label == "PRIVATE KEY" and b"ENCRYPTED" in content:
            raise InvalidArgumentError(f"tls: {name} is encrypted, and grpc can't ask for its password", field="tls")
        if not any(found.endswith(label.encode()) and _is_base64(body) for found, body in _BLOCK.findall(content)):
            raise InvalidArgumentError(
                f'tls: {name} holds no {what} in PEM, which begins with "-----BEGIN {label}-----"', field="tls"
            )


def _is_base64(body: bytes) -> bool:
    # Old keys have headers, separated by an empty line.
    try:
        return bool(binascii.a2b_base64(body.replace(b"\r", b"").rpartition(b"\n\n")[2]))
    except binascii.Error:
        return False


def are_unusable(error: grpc.RpcError) -> bool:
    """Returns whether gRPC couldn't use TlsOptions. Nothing was sent, and retries can't succeed."""
    return "failed to create security handshaker" in _said(error)


def why_it_fails(error: grpc.RpcError) -> str | None:
    """Explains a connection that failed because of TLS. Returns None if it failed for another reason."""
    details = _said(error)
    if "wrong_version_number" in details:
        return "the server doesn't use TLS: build the saver without tls, or give the address of the proxy that does"
    if "hostname verification" in details:
        return (
            "the server's certificate is for another host: use the name in its certificate as the target, or give the "
            "server a certificate for this name"
        )
    if "certificate has expired" in details or "certificate is not yet valid" in details:
        return "the server's certificate has expired, or isn't valid yet"
    if "certificate_verify_failed" in details:
        return (
            "the server's certificate is not trusted: give its authority's certificate, with "
            "tls=TlsOptions(root_certificates=...)"
        )
    return None


def why_it_may_fail(error: grpc.RpcError, tls: bool | TlsOptions) -> str | None:
    """Explains a connection that the server closed at once. Returns None if that isn't what happened."""
    details = _said(error)
    if "failed to connect" not in details or not ("socket closed" in details or "connection reset" in details):
        return None
    if not tls:
        return "the connection was closed at once; the server probably requires TLS: give tls=True or TlsOptions"
    if isinstance(tls, TlsOptions) and tls.certificate_chain is not None:
        return "the connection was closed right after the TLS handshake: the server may not trust certificate_chain"
    return (
        "the connection was closed right after the TLS handshake: the server may require a client certificate: "
        "give tls=TlsOptions(private_key=..., certificate_chain=...)"
    )


def _said(error: grpc.RpcError) -> str:
    return (error.details() or "").lower()
