"""The names by which a client's certificate is known, as the certificate itself has them.

gRPC tells names too, but cut at a NUL, and of all kinds alike. Who gets a certificate for `agent.acme`, a NUL and
`.mallory.example`, for an e-mail address or for a DNS name that reads like a URI would pass for somebody else.
"""

from __future__ import annotations

from collections.abc import Sequence

from cryptography import x509
from cryptography.x509.oid import NameOID

MOST_REMEMBERED = 1024
"""How many certificates' names are remembered. They are asked for with every call."""


class CertificateNames:
    """Reads certificates, and remembers their names."""

    def __init__(self) -> None:
        self._read: dict[bytes, tuple[str, ...]] = {}

    def of(self, pem: bytes) -> Sequence[str]:
        """Returns the names of a certificate: its URIs and DNS names, or its common name where it has no alternatives.

        What has a colon is a URI, what has none is not. A certificate that can't be read has no name.
        """
        names = self._read.get(pem)
        if names is None:
            names = _names(pem)
            if len(self._read) >= MOST_REMEMBERED:
                del self._read[next(iter(self._read))]
            self._read[pem] = names
        return names


def _names(pem: bytes) -> tuple[str, ...]:
    try:
        certificate = x509.load_pem_x509_certificate(pem)
        try:
            alternatives = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except x509.ExtensionNotFound:
            common = [str(name.value) for name in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
            return tuple(name for name in common if len(common) == 1 and _is_text(name) and ":" not in name)
        uris = alternatives.get_values_for_type(x509.UniformResourceIdentifier)
        hosts = alternatives.get_values_for_type(x509.DNSName)
    except (ValueError, TypeError):
        return ()
    return tuple(
        dict.fromkeys(
            [name for name in uris if _is_text(name) and ":" in name]
            + [name for name in hosts if _is_text(name) and ":" not in name]
        )
    )


def _is_text(name: str) -> bool:
    return bool(name) and name.isprintable()
