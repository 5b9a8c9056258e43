"""The names of a client's certificate, read from the certificate itself.

gRPC reports names too, but cut off at a NUL, and without their kind. Somebody with a certificate for `agent.acme`, a
NUL and `.mallory.example`, for an e-mail address, or for a DNS name that looks like a URI could pass for another.
"""

from __future__ import annotations

from collections.abc import Sequence

from cryptography import x509
from cryptography.x509.oid import NameOID

MOST_REMEMBERED = 1024
"""Number of certificates whose names are cached: every call needs them."""


class CertificateNames:
    """Reads certificates, and caches their names."""

    def __init__(self) -> None:
        self._read: dict[bytes, tuple[str, ...]] = {}

    def of(self, pem: bytes) -> Sequence[str]:
        """Returns a certificate's names: its URIs and DNS names, or its common name if it has no alternative names.

        Names with a colon are URIs, all others aren't. A certificate that can't be read has no name.
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
