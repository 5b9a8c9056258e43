"""Sealing and opening a value: what was sealed opens, and nothing else does."""

from __future__ import annotations

import itertools
import os
import pickle
import re
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
from langgraph.checkpoint.grpc import (
    CheckpointdError,
    Encryption,
    EncryptionError,
    InvalidArgumentError,
    PlaintextError,
    TamperedValueError,
    UnknownKeyError,
)
from langgraph.checkpoint.grpc._convert.decode import check_place
from langgraph.checkpoint.grpc._convert.serde import ValueSerde
from langgraph.checkpoint.grpc._encryption.aad import (
    AssociatedData,
    ChannelAssociatedData,
    ExtraAssociatedData,
    MetadataAssociatedData,
    PatchAssociatedData,
    WriteAssociatedData,
    encode,
)
from langgraph.checkpoint.grpc._encryption.xaes import XAes256Gcm
from langgraph.checkpoint.grpc._values.cache import ValueCache
from langgraph.checkpoint.grpc._values.outgoing import OutgoingCheckpoint
from langgraph.checkpoint.grpc._values.rows import ValueRows
from langgraph.checkpoint.grpc.encryption import refuse_sealed
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from checkpointd.v1 import checkpoint_service_pb2 as pb
from checkpointd.v1 import values_pb2 as values

KEY, OTHER_KEY = bytes(range(32)), bytes(range(1, 33))
HERE = ExtraAssociatedData("thread", "ns", "checkpoint")
NONCE = b"ABCDEFGHIJKLMNOPQRSTUVWX"


def encryption(current: str = "a", *, required: bool = True, tenant: str = "", **keys: bytes) -> Encryption:
    return Encryption(keys=keys or {"a": KEY}, current=current, required=required, tenant=tenant)


@pytest.mark.parametrize(
    ("key", "associated", "expected"),
    [
        (b"\1" * 32, b"", "ce546ef63c9cc60765923609b33a9a1974e96e52daf2fcf7075e2271"),
        (b"\3" * 32, b"c2sp.org/XAES-256-GCM", "986ec1832593df5443a179437fd083bf3fdb41abd740a21f71eb769d"),
    ],
    ids=["the subkey's top bit is 0", "it is 1"],
)
def test_the_cipher_is_xaes_256_gcm(key: bytes, associated: bytes, expected: str) -> None:
    """The test vectors of c2sp.org/XAES-256-GCM."""
    cipher = XAes256Gcm(key)
    assert cipher.encrypt(NONCE, b"XAES-256-GCM", associated).hex() == expected
    assert cipher.decrypt(NONCE, bytes.fromhex(expected), associated) == b"XAES-256-GCM"
    assert cipher.decrypt(NONCE, bytes.fromhex(expected), b"else") is None


@pytest.mark.parametrize("type_tag", ["msgpack", "null", "msgpack+aes", "a+cpd1.b", "é\n"])
@pytest.mark.parametrize("size", [0, 1, 1000, 3_000_000])
def test_what_was_sealed_opens_where_it_was_sealed(type_tag: str, size: int) -> None:
    data = os.urandom(size)
    sealed_type, sealed = encryption().seal(type_tag, data, HERE)
    assert sealed_type == f"{type_tag}+cpd1.a"
    assert len(sealed) == size + 40
    assert size < 16 or data[:16] not in sealed
    assert encryption().open(sealed_type, sealed, HERE) == (type_tag, data)


def test_the_same_value_never_looks_the_same() -> None:
    sealed = {encryption().seal("msgpack", b"value", HERE)[1] for _ in range(100)}
    assert len(sealed) == 100


def test_a_change_of_any_byte_is_seen() -> None:
    type_tag, sealed = encryption().seal("msgpack", b"value", HERE)
    for position in range(len(sealed)):
        changed = bytearray(sealed)
        changed[position] ^= 1
        with pytest.raises(TamperedValueError):
            encryption().open(type_tag, bytes(changed), HERE)


def test_a_cut_at_any_place_is_seen() -> None:
    type_tag, sealed = encryption().seal("msgpack", b"value", HERE)
    for length in range(len(sealed)):
        with pytest.raises(TamperedValueError):
            encryption().open(type_tag, sealed[:length], HERE)
    with pytest.raises(TamperedValueError):
        encryption().open(type_tag, sealed + b"\0", HERE)


@pytest.mark.parametrize("type_tag", ["pickle+cpd1.a", "+cpd1.a", "msgpack+aes+cpd1.a"])
def test_another_type_is_seen(type_tag: str) -> None:
    """A type decides what is done with the bytes: "pickle" would run code."""
    _, sealed = encryption().seal("msgpack", b"value", HERE)
    with pytest.raises(TamperedValueError):
        encryption().open(type_tag, sealed, HERE)


def test_the_key_of_that_name_may_be_another_one() -> None:
    with pytest.raises(TamperedValueError, match="another key by the name of 'a'"):
        encryption(a=OTHER_KEY).open(*encryption().seal("msgpack", b"value", HERE), HERE)


def test_another_tenant_s_value_does_not_open() -> None:
    sealed = encryption(tenant="one").seal("msgpack", b"value", HERE)
    for tenant in ("two", ""):
        with pytest.raises(TamperedValueError, match="another tenant"):
            encryption(tenant=tenant).open(*sealed, HERE)


def test_keys_are_changed_by_name() -> None:
    """The order of a rotation: every saver learns the new key, then writes with it, then the old one may be removed."""
    old = encryption().seal("msgpack", b"old", HERE)
    both_write_old = encryption("a", a=KEY, b=OTHER_KEY)
    both_write_new = encryption("b", a=KEY, b=OTHER_KEY)
    new = both_write_new.seal("msgpack", b"new", HERE)
    assert (old[0], new[0]) == ("msgpack+cpd1.a", "msgpack+cpd1.b")
    for savers in (both_write_old, both_write_new):
        assert savers.open(*old, HERE) == ("msgpack", b"old")
        assert savers.open(*new, HERE) == ("msgpack", b"new")
    without_old = encryption("b", b=OTHER_KEY)
    assert without_old.open(*new, HERE) == ("msgpack", b"new")
    with pytest.raises(UnknownKeyError, match="key 'a', which this saver doesn't have"):
        without_old.open(*old, HERE)


def test_a_value_can_t_be_given_another_key_s_name() -> None:
    both = encryption("a", a=KEY, b=KEY)
    _, sealed = both.seal("msgpack", b"value", HERE)
    with pytest.raises(TamperedValueError):
        both.open("msgpack+cpd1.b", sealed, HERE)


def test_a_plain_value_is_refused_unless_it_is_allowed() -> None:
    with pytest.raises(PlaintextError, match=r"is not encrypted.*required=False"):
        encryption().open("msgpack", b"value", HERE)
    assert encryption(required=False).open("msgpack", b"value", HERE) == ("msgpack", b"value")
    # Values written by LangGraph's own EncryptedSerializer are left for the serializer to open.
    assert encryption(required=False).open("msgpack+aes", b"value", HERE) == ("msgpack+aes", b"value")
    # A sealed value is opened nevertheless, and never passed on unopened.
    with pytest.raises(TamperedValueError):
        encryption(required=False).open("msgpack+cpd1.a", b"value", HERE)


def test_a_format_of_the_future_is_named() -> None:
    with pytest.raises(EncryptionError, match=r"format 'cpd2'.*too old"):
        encryption().open("msgpack+cpd2.a", b"value", HERE)


def test_a_saver_without_encryption_knows_a_sealed_value() -> None:
    with pytest.raises(UnknownKeyError, match=r"checkpoint checkpoint of thread 'thread' .* key 'a'.*encryption="):
        refuse_sealed("msgpack+cpd1.a", HERE)
    refuse_sealed("msgpack+aes", HERE)


def metadata(
    thread_id: str = "t",
    checkpoint_ns: str = "n",
    checkpoint_id: str = "1",
    parent: str = "0",
    *,
    body: bytes = b"body",
    versions: dict[str, str] | None = None,
) -> MetadataAssociatedData:
    """The place of a checkpoint's metadata."""
    versions = {"a": "s1", "b": "s2"} if versions is None else versions
    fields = (thread_id, checkpoint_ns, checkpoint_id, parent, body)
    return MetadataAssociatedData(*fields, list(versions), list(versions.values()))


DIGEST, OTHER_DIGEST = bytes(32), bytes(31) + b"x"
PLACES: list[AssociatedData] = [
    ExtraAssociatedData("t", "n", "1"),
    ExtraAssociatedData("u", "n", "1"),
    ExtraAssociatedData("t", "m", "1"),
    ExtraAssociatedData("t", "n", "2"),
    # Places that would be the same if their fields were only concatenated.
    ExtraAssociatedData("tn", "", "1"),
    ExtraAssociatedData("", "tn", "1"),
    ChannelAssociatedData("t", "n", "a", "s1"),
    ChannelAssociatedData("t", "n", "b", "s1"),
    ChannelAssociatedData("t", "n", "a", "s2"),
    ChannelAssociatedData("t", "n", "a", "i1"),
    ChannelAssociatedData("t", "n", "a", ""),
    ChannelAssociatedData("t", "m", "a", "s1"),
    ChannelAssociatedData("u", "n", "a", "s1"),
    ChannelAssociatedData("t", "na", "", "s1"),
    PatchAssociatedData("t", "n", "a", "s1", "s0", 10, DIGEST),
    PatchAssociatedData("u", "n", "a", "s1", "s0", 10, DIGEST),
    PatchAssociatedData("t", "m", "a", "s1", "s0", 10, DIGEST),
    PatchAssociatedData("t", "n", "b", "s1", "s0", 10, DIGEST),
    PatchAssociatedData("t", "n", "a", "s2", "s0", 10, DIGEST),
    PatchAssociatedData("t", "n", "a", "s1", "s2", 10, DIGEST),
    PatchAssociatedData("t", "n", "a", "s1", "s0", 11, DIGEST),
    PatchAssociatedData("t", "n", "a", "s1", "s0", 10, OTHER_DIGEST),
    WriteAssociatedData("t", "n", "1", "task", "path", 0, "a"),
    WriteAssociatedData("t", "n", "1", "task", "path", 0, "b"),
    WriteAssociatedData("t", "n", "1", "task", "path", 1, "a"),
    WriteAssociatedData("t", "n", "1", "task", "path", -1, "a"),
    WriteAssociatedData("t", "n", "1", "task", "", 0, "a"),
    WriteAssociatedData("t", "n", "1", "other", "path", 0, "a"),
    WriteAssociatedData("t", "n", "2", "task", "path", 0, "a"),
    WriteAssociatedData("t", "m", "1", "task", "path", 0, "a"),
    WriteAssociatedData("u", "n", "1", "task", "path", 0, "a"),
    metadata(),
    metadata("u"),
    metadata(checkpoint_ns="m"),
    metadata(checkpoint_id="2"),
    metadata(parent=""),
    metadata(body=b"other"),
    metadata(versions={}),
    metadata(versions={"a": "s1"}),
    metadata(versions={"a": "s2", "b": "s1"}),
    metadata(versions={"a": "s1", "b": "i2"}),
    metadata(versions={"a": "s1", "c": "s2"}),
    metadata(versions={"a": "s1b", "": "s2"}),
]


def test_a_value_opens_in_its_place_and_in_no_other() -> None:
    sealer = encryption()
    for place, elsewhere in itertools.product(PLACES, PLACES):
        sealed = sealer.seal("msgpack", b"value", place)
        if place is elsewhere:
            assert sealer.open(*sealed, elsewhere) == ("msgpack", b"value")
        else:
            with pytest.raises(TamperedValueError) as failed:
                sealer.open(*sealed, elsewhere)
            assert failed.value.thread_id == elsewhere.thread_id
            assert failed.value.place == elsewhere.place


def test_a_checkpoint_counts_the_same_in_whatever_order_its_channels_come() -> None:
    versions = {f"channel {number}": f"s{number}" for number in range(100)}
    backwards = {channel: versions[channel] for channel in reversed(versions)}
    assert metadata(versions=versions).fields() == metadata(versions=backwards).fields()


class TestPatchChains:
    """A chain of sealed patches opens as it was made, and in no other arrangement."""

    serde = ValueSerde(serde=JsonPlusSerializer(), encryption=encryption())

    def chain(self, *, channel: str = "a", start: str = "x") -> list[values.StoredValue]:
        """A value and three patches, each one character longer, as a saver stores them."""
        cache, rows = ValueCache(10**6), []
        for number in range(4):
            request = pb.PutCheckpointRequest(thread_id="t", checkpoint_ns="n")
            put = OutgoingCheckpoint(self.serde, cache, request)
            put.add(channel, f"s{number:032}.{7:017}", "bytes", (start * 1000 + "y" * number).encode())
            put.prepare()
            put.stage()
            (entry,) = request.values
            rows.append(values.StoredValue(channel=channel, version=entry.version, value=entry.value))
        assert [row.value.HasField("patch") for row in rows] == [False, True, True, True]
        return rows

    def opened(self, rows: list[values.StoredValue], version: str, channel: str = "a") -> bytes:
        value = ValueRows(self.serde, ("t", "n"), rows).value(channel, version)
        assert value is not None
        return value.data

    def test_it_opens_as_it_was_made(self) -> None:
        rows = self.chain()
        for number, row in enumerate(rows):
            assert self.opened(rows, row.version) == b"x" * 1000 + b"y" * number
        assert all(b"x" * 8 not in row.value.data for row in rows)

    def test_it_opens_when_a_value_below_was_replaced(self) -> None:
        """The server keeps the bases of patches under another name."""
        rows, others = self.chain(), self.chain(start="z")
        for position in (0, 1):
            aside = f"{rows[position].version}\x1f1234"
            for row in rows:
                if row.value.patch.base_version == rows[position].version:
                    row.value.patch.base_version = aside
            rows[position].version = aside
        assert self.opened([*rows, *others[:2]], rows[3].version) == b"x" * 1000 + b"yyy"
        assert self.opened([*rows, *others[:2]], others[1].version) == b"z" * 1000 + b"y"

    @pytest.mark.parametrize(
        "rearrange",
        [
            lambda rows, others: rows[2].value.CopyFrom(rows[1].value),
            lambda rows, others: rows[0].value.CopyFrom(others[0].value),
            lambda rows, others: rows[2].value.CopyFrom(others[2].value),
            lambda rows, others: setattr(rows[3].value.patch, "base_version", rows[1].version),
            lambda rows, others: setattr(rows[3].value.patch, "size", 1002),
            lambda rows, others: rows[3].value.ClearField("patch"),
            lambda rows, others: setattr(rows[3].value.patch, "sealed", False),
            lambda rows, others: setattr(rows[3].value, "type", "bytes"),
        ],
        ids=[
            "a patch in the place of the next",
            "another whole value below",
            "a patch of another chain",
            "a base left out",
            "another size",
            "a patch as a whole value",
            "as if it weren't sealed",
            "as plain bytes",
        ],
    )
    def test_it_opens_in_no_other_arrangement(self, rearrange: Callable[[Any, Any], None]) -> None:
        rows, others = self.chain(), self.chain(start="z")
        last = rows[3].version
        rearrange(rows, others)
        with pytest.raises((TamperedValueError, PlaintextError)):
            self.opened(rows, last)

    def test_it_opens_in_no_other_channel(self) -> None:
        rows = self.chain()
        for row in rows:
            row.channel = "b"
        with pytest.raises(TamperedValueError):
            self.opened(rows, rows[3].version, "b")

    def test_a_whole_chain_of_another_value_does_not_pass_for_this_one(self) -> None:
        """Not even with the same versions: the values below are bound to their versions, too, but not to each other's
        bytes."""
        rows, others = self.chain(), self.chain(start="z")
        mixed = [others[0], others[1], rows[2], rows[3]]
        with pytest.raises(TamperedValueError):
            self.opened(mixed, rows[3].version)


@pytest.mark.parametrize(
    ("request_", "fits"),
    [
        (pb.GetCheckpointRequest(thread_id="t"), True),
        (pb.GetCheckpointRequest(thread_id="t", checkpoint_id="1"), True),
        (pb.GetCheckpointRequest(thread_id="u"), False),
        (pb.GetCheckpointRequest(thread_id="t", checkpoint_ns="n"), False),
        (pb.GetCheckpointRequest(thread_id="t", checkpoint_id="2"), False),
        (pb.ListCheckpointsRequest(), True),
        (pb.ListCheckpointsRequest(thread_id="t", checkpoint_ns=""), True),
        (pb.ListCheckpointsRequest(thread_id="u"), False),
        (pb.ListCheckpointsRequest(checkpoint_ns="n"), False),
        (pb.ListCheckpointsRequest(thread_id="t", checkpoint_id="2"), False),
    ],
)
def test_a_server_can_t_pass_one_thread_off_as_another(
    request_: pb.GetCheckpointRequest | pb.ListCheckpointsRequest, fits: bool
) -> None:
    answer = [values.CheckpointTuple(thread_id="t", checkpoint_ns="", checkpoint_id="1")]
    serde = ValueSerde(serde=JsonPlusSerializer(), encryption=encryption())
    with nullcontext() if fits else pytest.raises(TamperedValueError, match="a different one"):
        check_place(serde, request_, answer)


def test_fields_can_be_told_apart() -> None:
    assert len({encode(fields) for fields in ((), (b"",), (b"", b""), (b"ab",), (b"a", b"b"), (b"", b"ab"))}) == 6


@pytest.mark.parametrize(
    ("make", "field", "says"),
    [
        (lambda: Encryption(keys={"a": KEY[:16]}, current="a"), "encryption.keys", "the key 'a' must be 32 bytes"),
        (lambda: Encryption(keys={"a": "x" * 32}, current="a"), "encryption.keys", "the key 'a' must be 32 bytes"),  # type: ignore[dict-item]
        (lambda: Encryption(keys={"a": KEY}, current="b"), "encryption.current", "no key 'b'"),
        (lambda: Encryption(keys={}, current="b"), "encryption.current", "no key 'b'"),
        *(
            (lambda name=name: Encryption(keys={name: KEY}, current=name), "encryption.keys", "is not a key id")
            for name in ("", "a b", "a+b", "é", "a\n", "x" * 65)
        ),
    ],
)
def test_keys_that_can_t_be_used_are_refused(make: Callable[[], Encryption], field: str, says: str) -> None:
    with pytest.raises(InvalidArgumentError, match=re.escape(says)) as failed:
        make()
    assert failed.value.field == field


def test_keys_are_not_told() -> None:
    shown = repr(encryption())
    assert shown == "Encryption(current='a', required=True, tenant='')"
    with pytest.raises(EncryptionError) as failed:
        encryption(a=OTHER_KEY).open(*encryption().seal("msgpack", b"sesame", HERE), HERE)
    for told in (KEY, OTHER_KEY, b"sesame"):
        assert repr(told)[2:-1] not in str(failed.value)


def test_the_keys_are_those_that_were_given() -> None:
    """Callers may change their dict afterwards."""
    given = {"a": KEY}
    made = Encryption(keys=given, current="a")
    given.clear()
    assert made.open(*made.seal("msgpack", b"value", HERE), HERE) == ("msgpack", b"value")


@pytest.mark.parametrize("kind", [EncryptionError, PlaintextError, UnknownKeyError, TamperedValueError])
def test_its_errors_travel_between_processes(kind: type[EncryptionError]) -> None:
    error = kind("what happened", thread_id="thread", place="channel 'a'")
    assert isinstance(error, CheckpointdError)
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is kind
    assert (str(copy), copy.thread_id, copy.place) == ("what happened", "thread", "channel 'a'")


def test_without_the_package_it_says_what_to_install() -> None:
    """The saver itself needs no `cryptography`."""
    program = """
import sys
sys.modules["cryptography"] = None
from langgraph.checkpoint.grpc import Encryption, GrpcSaver
GrpcSaver("127.0.0.1:1").close()
try:
    Encryption(keys={"a": bytes(32)}, current="a")
except ImportError as error:
    print(error)
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert (
        run.stdout
        == "encryption needs the package `cryptography`: pip install 'langgraph-checkpoint-grpc[encryption]'\n"
    )
