"""TLS from files that are reloaded when they change: each new connection gets the current certificate."""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import structlog
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from checkpointd_server.domain.access import TlsFiles
from checkpointd_server.domain.errors import SetupError
from checkpointd_server.rpc.auth.watched_file import fingerprint

_log = structlog.get_logger("checkpointd.tls")


class Certificates:
    """The server's certificate and its clients' authorities, from files.

    gRPC asks for them in its own threads, at the beginning of each connection. Files that don't match, as in the middle
    of a change, are ignored: the previous ones stay in force.

    Raises:
        SetupError: The files are unusable.
    """

    def __init__(self, files: TlsFiles) -> None:
        self._files = files
        self._lock = threading.Lock()
        self._seen = self._fingerprints()
        self._current = self._read()

    def credentials(self) -> grpc.ServerCredentials:
        """Returns the credentials for one address."""
        told = self._current

        def changed() -> Any:
            nonlocal told
            current = self._latest()
            if current is told:
                return None  # gRPC keeps the previous ones
            told = current
            return current

        required = self._files.client_ca is not None
        return grpc.dynamic_ssl_server_credentials(told, changed, require_client_authentication=required)

    def _latest(self) -> Any:
        with self._lock:
            found = self._fingerprints()
            if found != self._seen:
                self._seen = found
                try:
                    self._current = self._read()
                    _log.info("read again", cert=str(self._files.cert))
                except SetupError as error:
                    _log.error("the changed TLS files are not used; what they were before stays", reason=str(error))
            return self._current

    def _fingerprints(self) -> tuple[object, ...]:
        files = self._files
        return tuple(fingerprint(path) for path in (files.cert, files.key, files.client_ca) if path is not None)

    def _read(self) -> Any:
        files = self._files
        chain, key = _bytes(files.cert, "--tls-cert"), _bytes(files.key, "--tls-key")
        certificate = _certificates(chain, files.cert, "--tls-cert")[0]
        try:
            private_key = load_pem_private_key(key, password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            raise SetupError(f"--tls-key: {files.key} holds no private key in PEM, or one that is encrypted") from None
        if _spki(private_key.public_key()) != _spki(certificate.public_key()):
            raise SetupError(f"--tls-key: the key in {files.key} is not that of the certificate in {files.cert}")
        if certificate.not_valid_after_utc < datetime.now(UTC):
            _log.warning("the server's certificate has expired", cert=str(files.cert))
        authorities = None
        if files.client_ca is not None:
            authorities = _bytes(files.client_ca, "--tls-client-ca")
            _certificates(authorities, files.client_ca, "--tls-client-ca")
        return grpc.ssl_server_certificate_configuration([(key, chain)], root_certificates=authorities)


def _bytes(path: Path, option: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise SetupError(f"{option}: {path} can't be read: {error.strerror}") from None


def _certificates(content: bytes, path: Path, option: str) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(content)
    except ValueError:
        raise SetupError(f"{option}: {path} holds no certificate in PEM") from None


def _spki(key: Any) -> bytes:
    encoded: bytes = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return encoded
