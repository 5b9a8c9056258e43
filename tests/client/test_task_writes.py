"""Outgoing task writes: which are patches, on which base, and where they open."""

from __future__ import annotations

import copy
import random
from typing import Any

import pytest
from langgraph.checkpoint.grpc._convert.serde import ValueSerde
from langgraph.checkpoint.grpc._encryption.aad import WriteAssociatedData
from langgraph.checkpoint.grpc._transport import flows
from langgraph.checkpoint.grpc._values.cache import ValueCache
from langgraph.checkpoint.grpc._values.outgoing import OutgoingWrites
from langgraph.checkpoint.grpc._values.transfer import send
from langgraph.checkpoint.grpc.errors import CorruptValueError, EncryptionError, TamperedValueError
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer

from tests.client.table import KEY, OTHER_KEY, PLAIN, SEALED, SERDE, Table, put_of, read, writes_of

serdes = pytest.mark.parametrize("serde", [PLAIN, SEALED], ids=["plain", "encrypted"])


def opened(serde: ValueSerde, writes: OutgoingWrites) -> tuple[str, bytes]:
    """Returns the type and the bytes of the first of some writes, which is whole."""
    value = writes.request.writes[0].value
    place = (WriteAssociatedData, *KEY, "1", "task", "", 0, "a")
    return serde.open(value.type, value.data, place)


class TestTaskWrites:
    """A task write is a patch on its channel's value if it is large and has much in common with that."""

    def are_patches(
        self, base: Any, *written: Any, serde: ValueSerde = PLAIN, then: ValueSerde = PLAIN, **options: Any
    ) -> list[bool]:
        cache = ValueCache(options.pop("cache_bytes", 10**7))
        put_of(serde, cache, {"a": base}).stage()
        writes = writes_of(then, cache, [("a", value) for value in written])
        return [write.value.HasField("patch") for write in writes.request.writes]

    def test_which_are(self) -> None:
        dice = random.Random(1)
        text = dice.randbytes(5000).hex()
        items = [dice.randbytes(500).hex() for _ in range(10)]
        assert self.are_patches(text, text, text + "y", text[1:], "z" * 10_000) == [True, True, True, False]
        assert self.are_patches(items, items, [*items, "x"], items[1:], items[:1]) == [True, True, True, False]
        assert self.are_patches(text, text.encode()) == [False]  # of another type
        assert self.are_patches("x" * 3000, "x" * 3001) == [False]  # a small one isn't compared
        assert self.are_patches(text, text, cache_bytes=5000) == [False]
        assert self.are_patches(text, text, serde=SEALED, then=SEALED) == [True]
        assert self.are_patches(text, text, serde=SEALED, then=OTHER_KEY) == [False]
        assert self.are_patches(text, text, serde=PLAIN, then=SEALED) == [False]
        # Items added to a long list aren't in it, and aren't searched for there.
        assert self.are_patches(items * 10, items[:9]) == [False]
        aes = ValueSerde(serde=EncryptedSerializer.from_pycryptodome_aes(key=bytes(16)))
        assert self.are_patches(text, text, serde=aes, then=aes) == [False]

    @serdes
    def test_one_that_is_the_same_costs_a_few_bytes_however_long_the_chain(self, serde: ValueSerde) -> None:
        cache, blob = ValueCache(10**7), random.Random(2).randbytes(1_000_000)
        put_of(serde, cache, {"a": blob}).stage()
        for number in range(100):
            writes = writes_of(serde, cache, [("a", blob), ("b", 1)])
            assert writes.request.ByteSize() < 300
            patch = writes.request.writes[0].value.patch
            assert (patch.size, patch.sealed) == (len(SERDE.dumps_typed(blob)[1]), serde is SEALED)
            put = put_of(serde, cache, {"a": blob[:number] + b"." + blob[number + 1 :]})
            put.prepare()
            put.stage()

    @serdes
    def test_they_are_made_again_whole(self, serde: ValueSerde) -> None:
        cache, text = ValueCache(10**7), "x" * 5000
        put_of(serde, cache, {"a": text}).stage()
        writes = writes_of(serde, cache, [("a", text), ("b", 1)])
        writes.request.precondition.if_version_match = 7
        assert writes.request.writes[0].value.HasField("patch")
        # In flight, it holds no more than it sends: the base is there anyway.
        assert writes.size < 100
        assert writes.make_whole()
        assert writes.size > 5000
        assert text in repr(SERDE.loads_typed(opened(serde, writes)))
        assert [write.value.HasField("patch") for write in writes.request.writes] == [False, False]
        assert (writes.request.precondition.if_version_match, writes.request.writes[0].idx) == (7, 0)
        assert not writes.make_whole()

    def test_a_sealed_one_opens_in_its_place_and_on_its_base_alone(self) -> None:
        table, cache = Table(), ValueCache(10**7)
        blob = random.Random(3).randbytes(10_000)
        for number in (1, 2):
            flows.run(send(put_of(SEALED, cache, {"a": blob + b"%d" % number}, {"a": number}, id=str(number))), table)
            for task in ("t", "u"):
                written = writes_of(SEALED, cache, [("a", blob + task.encode())], beside=str(number), task=task)
                flows.run(send(written), table)
        kept = copy.deepcopy(table.writes)

        def read_all() -> list[Any]:
            found = [read(table, SEALED, ValueCache(0), number).pending_writes for number in "12"]
            return [value for beside_one in found for _, _, value in beside_one]

        assert read_all() == [blob + task for task in (b"t", b"u", b"t", b"u")]
        swaps = [((("1", "t", 0)), ("1", "u", 0)), (("1", "t", 0), ("2", "t", 0))]
        for one, other in swaps:
            table.writes = copy.deepcopy(kept)
            table.writes[one].value.CopyFrom(kept[other].value)
            with pytest.raises(TamperedValueError):
                read_all()
        # A write that is moved to another base of the same size.
        table.writes = copy.deepcopy(kept)
        table.writes["1", "t", 0].value.patch.base_version = "i2"
        with pytest.raises(TamperedValueError):
            read_all()
        # A plain value in place of a sealed one.
        table.writes = copy.deepcopy(kept)
        plain = writes_of(PLAIN, ValueCache(0), [("a", b"forged" * 1000)])
        table.writes["1", "t", 0].value.CopyFrom(plain.request.writes[0].value)
        with pytest.raises(EncryptionError):
            read_all()

    @serdes
    def test_what_they_are_built_on_may_be_left_out_and_large(self, serde: ValueSerde) -> None:
        """It is fetched once for the checkpoint and its writes, and not kept for the next checkpoint."""
        table, cache = Table(), ValueCache(10**7)
        blobs = [random.Random(4).randbytes(20_000)]
        for number in range(4):
            flows.run(send(put_of(serde, cache, {"a": blobs[-1]}, {"a": number + 1}, id=f"{number}")), table)
            written = [("a", blobs[-1] + b"."), ("a", blobs[-1]), ("a", blobs[0])]
            flows.run(send(writes_of(serde, cache, written, beside=f"{number}")), table)
            blobs.append(blobs[-1] + bytes(50))
        # Also a write that is built on an earlier version than the checkpoint's.
        table.writes["3", "task", 3] = copy.deepcopy(table.writes["1", "task", 0])
        if serde is SEALED:
            del table.writes["3", "task", 3]
        table.left_out_from = 1000
        for number in range(4):
            found = read(table, serde, ValueCache(0), f"{number}", kept_bytes=0)
            expected = [blobs[number] + b".", blobs[number], blobs[0]]
            if number == 3 and serde is PLAIN:
                expected.append(blobs[1] + b".")
            assert [value for _, _, value in found.pending_writes] == expected
            assert found.checkpoint["channel_values"] == {"a": blobs[number]}

    def test_one_whose_base_is_missing_is_never_shown_as_a_value(self) -> None:
        table, cache = Table(), ValueCache(10**7)
        text = "x" * 5000
        flows.run(send(put_of(PLAIN, cache, {"a": text}, id="1")), table)
        flows.run(send(writes_of(PLAIN, cache, [("a", text + "y")])), table)
        flows.run(send(put_of(PLAIN, cache, {"a": text + "z"}, id="2")), table)
        assert read(table, PLAIN, ValueCache(0), "1").pending_writes == [("task", "a", text + "y")]
        table.rows.clear()
        with pytest.raises(CorruptValueError, match="builds on is missing"):
            read(table, PLAIN, ValueCache(0), "1")
