"""XAES-256-GCM (c2sp.org/XAES-256-GCM): AES-256-GCM with nonces that are long enough to be drawn at random.

AES-GCM alone has nonces of 96 bits. Random ones are safe for 2^32 messages per key (NIST SP 800-38D), which busy agents
write within weeks; and a repeated nonce lets others forge messages. Here a nonce has 192 bits. The
key and the first half of it make a key of the message's own, through AES as a key derivation function (NIST SP
800-108), and 2^80 messages are fine. All of it is AES as every platform has it, where XChaCha20 and AES-GCM-SIV are
rare.

Needs the package `cryptography`.
"""

from __future__ import annotations

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEY_BYTES = 32
NONCE_BYTES = 24
TAG_BYTES = 16

_BLOCK_BITS = 128
_BLOCK_BYTES = 16
_HALF = 12


class XAes256Gcm:
    """One key. May be used from any number of threads at once."""

    def __init__(self, key: bytes) -> None:
        # One block at a time, each once: the way to AES as a function of a block.
        self._aes = Cipher(algorithms.AES256(key), modes.ECB())  # noqa: S305
        first = int.from_bytes(self._aes.encryptor().update(bytes(_BLOCK_BYTES)))
        doubled = first << 1 & (1 << _BLOCK_BITS) - 1
        self._subkey = doubled ^ 0b10000111 if first >> _BLOCK_BITS - 1 else doubled

    def encrypt(self, nonce: bytes, data: bytes, associated: bytes) -> bytes:
        """Returns the ciphertext, with the tag behind it."""
        return self._of_message(nonce).encrypt(nonce[_HALF:], data, associated)

    def decrypt(self, nonce: bytes, data: bytes, associated: bytes) -> bytes | None:
        """Returns the plaintext. None: another key, nonce or associated data, or the ciphertext was changed."""
        try:
            return self._of_message(nonce).decrypt(nonce[_HALF:], data, associated)
        except InvalidTag:
            return None

    def _of_message(self, nonce: bytes) -> AESGCM:
        halves = (b"\0\1X\0", b"\0\2X\0")
        blocks = [int.from_bytes(counter + nonce[:_HALF]) ^ self._subkey for counter in halves]
        return AESGCM(self._aes.encryptor().update(b"".join(block.to_bytes(_BLOCK_BYTES) for block in blocks)))
