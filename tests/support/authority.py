"""Certificates and tokens, created for tests."""

from __future__ import annotations

import ipaddress
import json
import ssl
import threading
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

import jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from cryptography.x509.oid import NameOID

ISSUER, AUDIENCE = "https://issuer.test/", "checkpointd"


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


class Authority:
    """A certificate authority."""

    def __init__(self, name: str = "authority") -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name(name)
        self._certificate = (
            self._builder(self._name, self._key)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.pem = self._certificate.public_bytes(Encoding.PEM)
        """Its certificate."""

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(hours=1))
        )

    def issue(self, common_name: str, *names: str) -> tuple[bytes, bytes]:
        """Returns a certificate for this machine, or for these URIs, with its private key: both as PEM."""
        alternatives: list[x509.GeneralName] = [x509.UniformResourceIdentifier(name) for name in names]
        if not names:
            loopback = ipaddress.ip_address("127.0.0.1")
            alternatives = [x509.IPAddress(loopback), x509.DNSName("localhost")]
        return self.issue_for(common_name, alternatives)

    def issue_for(self, common_name: str, alternatives: Sequence[x509.GeneralName]) -> tuple[bytes, bytes]:
        """Returns a certificate for any names, with its private key: both as PEM."""
        key = ec.generate_private_key(ec.SECP256R1())
        builder = self._builder(_name(common_name), key)
        if alternatives:
            builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        certificate = builder.sign(self._key, hashes.SHA256())
        private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return certificate.public_bytes(Encoding.PEM), private

    def write(self, folder: Path, common_name: str = "server") -> tuple[Path, Path]:
        """Issues a certificate into files, replacing existing ones, and returns their paths."""
        paths = folder / "tls.crt", folder / "tls.key"
        for path, content in zip(paths, self.issue(common_name), strict=True):
            path.write_bytes(content)
        return paths


class Issuer:
    """An issuer of JSON Web Tokens, which serves its keys at a URL while entered."""

    def __init__(self) -> None:
        self.keys: dict[str, Any] = {}
        self.requests = 0
        self.broken = False
        self._answers = threading.Event()
        self._answers.set()
        self._server: ThreadingHTTPServer | None = None
        self._port = 0
        self.rotate("first")

    def rotate(self, kid: str) -> None:
        """Replaces all keys by a new one."""
        self.kid = kid
        self.keys = {kid: ec.generate_private_key(ec.SECP256R1())}

    def hang(self) -> None:
        """Stops answering requests."""
        self._answers.clear()

    @property
    def jwks(self) -> bytes:
        """The public keys."""
        entries = []
        for kid, key in self.keys.items():
            entry = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(key.public_key()))
            entries.append({**entry, "kid": kid, "use": "sig", "alg": "ES256"})
        return json.dumps({"keys": entries}).encode()

    @property
    def pem(self) -> bytes:
        """The current public key."""
        content: bytes = self.keys[self.kid].public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        return content

    def token(
        self,
        tenant: object = "acme",
        scopes: str | Sequence[str] | None = "read write",
        *,
        algorithm: str = "ES256",
        key: Any = None,
        headers: dict[str, Any] | None = None,
        **claims: Any,
    ) -> str:
        """Issues a token. Claims that are None are left out."""
        now = int(time.time())
        all_claims = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": "an agent",
            "iat": now,
            "exp": now + 600,
            "tenant": tenant,
            "scope": scopes,
            **claims,
        }
        present = {name: value for name, value in all_claims.items() if value is not None}
        if key is None and algorithm != "none":
            key = self.keys[self.kid]
        return jwt.encode(present, key, algorithm=algorithm, headers={"kid": self.kid, **(headers or {})})

    @property
    def url(self) -> str:
        """The URL of its keys."""
        return f"http://127.0.0.1:{self._port}/jwks.json"

    def __enter__(self) -> Self:
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                issuer.requests += 1
                issuer._answers.wait()
                self.send_response(500 if issuer.broken else 200)
                self.end_headers()
                self.wfile.write(issuer.jwks)

            def log_message(self, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", self._port), Handler)
        self._port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        assert self._server is not None
        self._answers.set()
        self._server.shutdown()
        self._server.server_close()


def shown_name(target: str) -> str:
    """Returns the name in the certificate that a new connection receives."""
    host, _, port = target.rpartition(":")
    certificate = x509.load_pem_x509_certificate(ssl.get_server_certificate((host, int(port))).encode())
    (attribute,) = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(attribute.value)
