"""TLS of the commands: checks of certificate files, and explanations of failed connections."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click


def read_credentials(ca: Path | None, cert: Path | None, key: Path | None) -> Any:
    """Returns gRPC's credentials from the files. Raises UsageError, which names the option and the file."""
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
        raise click.UsageError(f"--tls-client-key: {key} holds no private key in PEM, or an encrypted one") from None
    if not belongs:
        raise click.UsageError(f"--tls-client-key: the key in {key} does not belong to the certificate in {cert}")
    return grpc.ssl_channel_credentials(roots, private, chain)


def why_it_fails(details: str, *, tls: bool, certificate: bool) -> str | None:
    """Explains a connection that failed because of TLS. Returns None if it failed for another reason.

    Args:
        details: gRPC's error message.
        tls: Whether TLS was used.
        certificate: Whether the client showed a certificate.
    """
    found = details.lower()
    if "wrong_version_number" in found:
        return "the server doesn't use TLS: leave out --tls and --tls-ca (CHECKPOINTD_TLS, CHECKPOINTD_TLS_CA)"
    if "hostname verification" in found:
        return "the server's certificate is for another host: use the name in its certificate as --target"
    if "certificate has expired" in found or "certificate is not yet valid" in found:
        return "the server's certificate has expired, or isn't valid yet"
    if "certificate_verify_failed" in found:
        return "the server's certificate is not trusted: give its authority's certificate with --tls-ca"
    closed = "socket closed" in found or "connection reset" in found
    if not closed or "failed to connect" not in found:
        return None
    if not tls:
        return (
            "the connection was closed at once; the server probably requires TLS: give --tls, or --tls-ca with the "
            "certificate of its authority"
        )
    if certificate:
        return (
            "the connection was closed right after the TLS handshake: the server may not trust the certificate of "
            "--tls-client-cert"
        )
    return (
        "the connection was closed right after the TLS handshake: the server may require a client certificate "
        "(--tls-client-cert and --tls-client-key)"
    )


def _read(path: Path, option: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise click.UsageError(f"{option}: {path} can't be read: {error.strerror}") from None
