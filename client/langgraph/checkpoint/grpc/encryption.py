"""Encryption on the client: the server and its database keep what they can't read, change or move unnoticed.

A sealed value has the type "<its own type>+cpd1.<key id>". Its bytes are a random nonce of 24 bytes, the ciphertext, as
long as the value, and a tag of 16 bytes. Bound to it, as associated data, are that type, the tenant and the place where
it is stored. Key ids stand in the type, so that a query can tell which keys are still in use.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from langgraph.checkpoint.grpc._encryption.aad import AssociatedData, encode
from langgraph.checkpoint.grpc.errors import (
    EncryptionError,
    InvalidArgumentError,
    PlaintextError,
    TamperedValueError,
    UnknownKeyError,
)

if TYPE_CHECKING:
    from langgraph.checkpoint.grpc._encryption.xaes import XAes256Gcm

_FORMAT = "cpd1"
_SEALED = re.compile(r"(.*)\+(cpd[0-9]+)\.([\w.-]+)", re.ASCII | re.DOTALL)
_KEY_ID = re.compile(r"[\w.-]{1,64}", re.ASCII)
_KEY_BYTES = 32
_NONCE_BYTES = 24
_TAG_BYTES = 16
_LONGEST_VALUE = 2**31 - 64
"""The cipher takes no more at once."""


@dataclass(frozen=True, kw_only=True)
class Encryption:
    """With which keys a saver encrypts values, and what it takes from the server. Needs the package `cryptography`.

    Example:
        ```python
        keys = {"2026-11": os.urandom(32)}  # from a secret store, not a new one each time
        saver = GrpcSaver("127.0.0.1:50051", encryption=Encryption(keys=keys, current="2026-11"))
        ```
    """

    keys: Mapping[str, bytes] = field(repr=False)
    """Keys of 32 random bytes, by their ids. All of them open values. An id is written beside every value, in plain
    text: 1 to 64 ASCII letters, digits, "_", "-" and "."."""
    current: str
    """The id of the key that seals what is written from now on."""
    required: bool = True
    """True if a value that isn't encrypted is refused. False while a store that was filled without encryption moves
    over: until it is True, whoever can change the database can put plain values in place of encrypted ones."""
    tenant: str = ""
    """A name that is bound to every value, for tenants that share a key. The server doesn't see it, and it need not be
    the server's name for the tenant; all savers of the tenant must have the same."""
    _ciphers: Mapping[str, XAes256Gcm] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for key_id, key in self.keys.items():
            if not isinstance(key_id, str) or not _KEY_ID.fullmatch(key_id):
                raise InvalidArgumentError(
                    f"encryption.keys: {key_id!r} is not a key id; use 1 to 64 ASCII letters, digits, '_', '-' and '.'",
                    field="encryption.keys",
                )
            if not isinstance(key, bytes) or len(key) != _KEY_BYTES:
                raise InvalidArgumentError(
                    f"encryption.keys: the key {key_id!r} must be {_KEY_BYTES} bytes; "
                    "use `os.urandom(32)`, not a password",
                    field="encryption.keys",
                    limit=_KEY_BYTES,
                )
        if self.current not in self.keys:
            raise InvalidArgumentError(
                f"encryption.current: there is no key {self.current!r} among the keys", field="encryption.current"
            )
        try:
            from langgraph.checkpoint.grpc._encryption.xaes import XAes256Gcm
        except ImportError:
            raise ImportError(
                "encryption needs the package `cryptography`: pip install 'langgraph-checkpoint-grpc[encryption]'"
            ) from None
        object.__setattr__(self, "keys", dict(self.keys))
        object.__setattr__(self, "_ciphers", {key_id: XAes256Gcm(key) for key_id, key in self.keys.items()})

    def seal(self, type_tag: str, data: bytes, place: AssociatedData) -> tuple[str, bytes]:
        """Encrypts a serialized value.

        Args:
            type_tag: The serializer's tag.
            data: The serialized bytes.
            place: Where the value is going to be stored.

        Returns:
            The tag and the bytes to store.

        Raises:
            InvalidArgumentError: The value is too large to be encrypted at once.
        """
        if len(data) > _LONGEST_VALUE:
            raise InvalidArgumentError(
                f"{place.place}: {len(data)} bytes are more than can be encrypted at once, which is {_LONGEST_VALUE}",
                field="value",
                limit=_LONGEST_VALUE,
            )
        sealed_type = self.sealed_type(type_tag)
        nonce = os.urandom(_NONCE_BYTES)
        return sealed_type, nonce + self._ciphers[self.current].encrypt(nonce, data, self._bound(sealed_type, place))

    def sealed_type(self, type_tag: str) -> str:
        """Returns the type tag that a sealed value is stored with.

        Args:
            type_tag: The serializer's type tag.
        """
        return f"{type_tag}+{_FORMAT}.{self.current}"

    def open(self, type_tag: str, data: bytes, place: AssociatedData) -> tuple[str, bytes]:
        """Decrypts what was read.

        Args:
            type_tag: The tag, as it was stored.
            data: The bytes, as they were stored.
            place: Where the value was found.

        Returns:
            The serializer's own tag and bytes.

        Raises:
            PlaintextError: The value isn't encrypted, and that is required.
            UnknownKeyError: It is encrypted with a key that isn't among `keys`.
            TamperedValueError: It was changed, cut or moved, or the key isn't the one that it was encrypted with.
        """
        sealed = _SEALED.fullmatch(type_tag)
        if sealed is None:
            if self.required:
                raise _error(
                    PlaintextError,
                    place,
                    "is not encrypted, and this saver requires encryption. If it was stored before encryption was "
                    "turned on, read it with required=False",
                )
            return type_tag, data
        inner_type, format_, key_id = sealed.groups()
        if format_ != _FORMAT:
            raise _error(
                EncryptionError, place, f"is encrypted in the format {format_!r}; this client is too old for it"
            )
        cipher = self._ciphers.get(key_id)
        if cipher is None:
            raise _error(UnknownKeyError, place, f"is encrypted with the key {key_id!r}, which this saver doesn't have")
        opened = None
        if len(data) >= _NONCE_BYTES + _TAG_BYTES:
            opened = cipher.decrypt(data[:_NONCE_BYTES], data[_NONCE_BYTES:], self._bound(type_tag, place))
        if opened is None:
            raise _error(
                TamperedValueError,
                place,
                "is not what was encrypted there: it was changed, cut or moved from elsewhere in the database, or this "
                f"saver has another tenant, or another key by the name of {key_id!r}",
            )
        return inner_type, opened

    def _bound(self, sealed_type: str, place: AssociatedData) -> bytes:
        return encode((b"checkpointd", sealed_type.encode(), self.tenant.encode(), *place.fields()))


def refuse_sealed(type_tag: str, place: AssociatedData) -> None:
    """Raises UnknownKeyError if a value is sealed: for savers without encryption."""
    if "+" in type_tag and (sealed := _SEALED.fullmatch(type_tag)):
        raise _error(
            UnknownKeyError, place, f"is encrypted with the key {sealed[3]!r}; build the saver with encryption="
        )


def _error(kind: type[EncryptionError], place: AssociatedData, what: str) -> EncryptionError:
    return kind(f"{place.place} of thread {place.thread_id!r} {what}", thread_id=place.thread_id, place=place.place)
