"""TLS as the commands speak it: certificates from files, looked at before they are used, and why a connection fails."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click


def read_credentials(ca: Path | None, cert: Path | None, key: Path | None) -> Any:
    """Returns what grpc speaks TLS with. Raises UsageError, which names the option and the file."""
    import grpc
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    def certificate(path: Path, option: str) -> tuple[bytes, Any]:
        content = _read(path, option)
        try:
            return content, x509.load_pem_x509_certificates(content)[0].public_key()
        except (ValueError, UnsupportedAlgorithm):
            raise click.UsageError(f"{option}: {path} holds no certificate in PEM") from None

    roots = None if ca is None else certificate(ca, "--tls-ca")[0]
    if cert is None or key is None:
        return grpc.ssl_channel_credentials(roots)
    chain, public = certificate(cert, "--tls-client-cert")
    private = _read(key, "--tls-client-key")
    try:
        belongs = load_pem_private_key(private, password=None).public_key() == public
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise click.UsageError(
            f"--tls-client-key: {key} holds no private key in PEM, or one that is encrypted"
        ) from None
    if not belongs:
        raise click.UsageError(f"--tls-client-key: the key in {key} is not that of the certificate in {cert}")
    return grpc.ssl_channel_credentials(roots, private, chain)


def why_it_fails(details: str, *, tls: bool, certificate: bool) -> str | None:
    """Says in plain words what is wrong with TLS, or with its lack, where a connection fails; None: not that.

    Args:
        details: What grpc says.
        tls: Whether TLS was spoken.
        certificate: Whether the client showed a certificate.
    """
    found = details.lower()
    if "wrong_version_number" in found:
        return "the server there speaks no TLS: ask without --tls and --tls-ca (CHECKPOINTD_TLS, CHECKPOINTD_TLS_CA)"
    if "hostname verification" in found:
        return "the server's certificate is for another host: name the server in --target as its certificate does"
    if "certificate has expired" in found or "certificate is not yet valid" in found:
        return "the server's certificate has expired, or isn't valid yet"
    if "certificate_verify_failed" in found:
        return (
            "the server's certificate is not to be trusted: name the file of the authority that signed it with --tls-ca"
        )
    closed = "socket closed" in found or "connection reset" in found
    if not closed or "failed to connect" not in found:
        return None
    if not tls:
        return (
            "the connection was closed at once, as a server does that speaks TLS: give --tls, or --tls-ca with the "
            "file of its authority"
        )
    if certificate:
        return (
            "the connection was closed right after the TLS handshake: the server may not trust the certificate of "
            "--tls-client-cert"
        )
    return (
        "the connection was closed right after the TLS handshake: the server may want a certificate, "
        "--tls-client-cert and --tls-client-key"
    )


def _read(path: Path, option: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise click.UsageError(f"{option}: {path} can't be read: {error.strerror}") from None
