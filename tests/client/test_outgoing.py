"""Outgoing values: which are patches, on which base, which are uploaded ahead, and what a failed put leaves behind."""

from __future__ import annotations

import copy
import random
import zlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langgraph.checkpoint.grpc._convert import encode
from langgraph.checkpoint.grpc._convert.serde import ValueSerde
from langgraph.checkpoint.grpc._encryption.aad import ChannelAssociatedData
from langgraph.checkpoint.grpc._transport import flows
from langgraph.checkpoint.grpc._values import rows
from langgraph.checkpoint.grpc._values.cache import ValueCache
from langgraph.checkpoint.grpc._values.instructions import apply
from langgraph.checkpoint.grpc._values.outgoing import MAX_DEPTH, MESSAGE_BYTES, OutgoingCheckpoint
from langgraph.checkpoint.grpc._values.transfer import send
from langgraph.checkpoint.grpc.errors import (
    BaseMissingError,
)
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer

from checkpointd.v1 import checkpoint_service_pb2 as pb
from checkpointd.v1 import values_pb2 as values
from tests.client.table import (
    KEY,
    OTHER_KEY,
    PLAIN,
    SEALED,
    SERDE,
    Table,
    put_of,
    read,
    version,
    writes_of,
)
from tests.support.properties import PATIENT

MEBIBYTE = 1024 * 1024


serdes = pytest.mark.parametrize("serde", [PLAIN, SEALED], ids=["plain", "encrypted"])


def only(put: OutgoingCheckpoint) -> values.TypedValue:
    (entry,) = put.request.values
    return entry.value


@serdes
def test_a_list_that_grows_becomes_patches_in_short_chains(serde: ValueSerde) -> None:
    cache, dice = ValueCache(10**7), random.Random(1)
    items: list[str] = []
    base, whole, checksums, depth, total, wholes = "", "", {"": 0}, 0, 0, 0
    for _ in range(300):
        items.append(dice.randbytes(450).hex())
        put = put_of(serde, cache, {"items": items})
        value, made = only(put), put.request.values[0].version
        if value.HasField("patch"):
            # One patch replaces a chain of the maximum length, and is based on the first value of that chain.
            assert value.patch.base_version == (base if depth < MAX_DEPTH else whole)
            depth = depth + 1 if depth < MAX_DEPTH else 1
            assert value.patch.sealed == (serde is SEALED)
            assert (value.patch.crc32 == zlib.crc32(SERDE.dumps_typed(items)[1])) == (serde is PLAIN)
            assert value.patch.size == len(SERDE.dumps_typed(items)[1])
            assert value.patch.base_crc32 == checksums[value.patch.base_version]
        else:
            whole, depth, wholes = made, 0, wholes + 1
        checksums[made] = value.patch.crc32 or value.crc32
        assert depth <= MAX_DEPTH
        put.stage()
        base = made
        total += put.request.ByteSize()
    # Stored whole each time, it would be 40 MB.
    assert total < 2_000_000
    assert wholes < 10


@serdes
@pytest.mark.parametrize("at_once_from", [0, rows.AT_ONCE_BYTES], ids=["at once", "one by one"])
def test_edits_in_many_places_are_small_however_many_follow(
    serde: ValueSerde, at_once_from: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "AT_ONCE_BYTES", at_once_from)
    table, cache, dice = Table(), ValueCache(10**7), random.Random(4)
    files = {f"file-{number}": dice.randbytes(5_000).hex() for number in range(20)}
    total = 0
    for step in range(1, 4 * MAX_DEPTH):
        for name in dice.sample(sorted(files), 3):
            at = dice.randrange(9_000)
            files[name] = files[name][:at] + dice.randbytes(20).hex() + files[name][at + 40 :]
        put = put_of(serde, cache, {"files": files}, {"files": step}, id=f"{step:04}")
        flows.run(send(put), table)
        total += sum(len(entry.value.data) for entry in put.request.values)
        if step % 17 == 0:
            assert read(table, serde, ValueCache(0)).checkpoint["channel_values"] == {"files": files}
    assert read(table, serde, ValueCache(0)).checkpoint["channel_values"] == {"files": files}
    # Stored whole once, and at most a few kB a step after that.
    assert total < 200_000 + 4 * MAX_DEPTH * 2_000, total


def test_a_chain_has_no_more_bytes_than_its_value() -> None:
    cache, dice = ValueCache(10**7), random.Random(2)
    blob = dice.randbytes(100_000)
    chain = 0
    for _ in range(100):
        at = dice.randrange(70_000)
        blob = blob[:at] + dice.randbytes(20_000) + blob[at + 20_000 :]
        put = put_of(PLAIN, cache, {"blob": blob})
        value = only(put)
        chain = chain + len(value.data) if value.HasField("patch") else 0
        assert chain <= len(blob)
        put.stage()


def patches_on(base: Any, new: Any, *, serde: ValueSerde = PLAIN, then: ValueSerde = PLAIN, **options: Any) -> bool:
    """Returns whether a value becomes a patch on the one before."""
    cache = ValueCache(options.pop("cache_bytes", 10**7))
    put_of(serde, cache, {"a": base}, options.pop("first", None)).stage()
    return only(put_of(then, cache, {"a": new}, options.pop("second", None))).HasField("patch")


def test_what_becomes_a_patch() -> None:
    text = "x" * 5000
    assert patches_on(text, text + "y")
    assert patches_on(text, text)
    assert not patches_on(text, "z" * 5000)
    assert not patches_on("x" * 400, "x" * 401)  # too small to pay off
    assert not patches_on(text, text.encode())  # of another type
    assert not patches_on(text, text + "y", cache_bytes=0)
    assert not patches_on(text, text + "y", cache_bytes=4000)
    # A patch under a new key would need the old one.
    assert patches_on(text, text + "y", serde=SEALED, then=SEALED)
    assert not patches_on(text, text + "y", serde=SEALED, then=OTHER_KEY)
    assert not patches_on(text, text + "y", serde=PLAIN, then=SEALED)


def test_a_value_is_not_built_on_its_own_version() -> None:
    same = {"a": version()}
    assert not patches_on("x" * 5000, "x" * 5001, first=same, second=same)


@serdes
def test_a_version_that_was_used_again_is_another_value(serde: ValueSerde) -> None:
    """As after a thread was deleted and created again: by hand, since savers never make a version twice."""
    table, cache, other = Table(), ValueCache(10**7), ValueCache(10**7)
    flows.run(send(put_of(serde, cache, {"a": "x" * 5000}, {"a": 1}, id="1")), table)
    flows.run(send(put_of(serde, other, {"a": "y" * 5000}, {"a": 1}, id="1")), table)
    assert read(table, serde, ValueCache(0)).checkpoint["channel_values"] == {"a": "y" * 5000}
    flows.run(send(put_of(serde, cache, {"a": "x" * 5001}, {"a": 2}, id="2")), table)
    assert read(table, serde, ValueCache(0)).checkpoint["channel_values"] == {"a": "x" * 5001}
    assert read(table, serde, cache, "1").checkpoint["channel_values"] == {"a": "y" * 5000}
    flows.run(send(put_of(serde, other, {"a": "z" * 5000}, {"a": 2}, id="2")), table)
    assert read(table, serde, cache).checkpoint["channel_values"] == {"a": "z" * 5000}


def test_what_the_serializer_encrypts_is_not_compared() -> None:
    aes = ValueSerde(serde=EncryptedSerializer.from_pycryptodome_aes(key=bytes(16)))
    assert not patches_on("x" * 5000, "x" * 5001, serde=aes, then=aes)


def test_a_put_that_failed_is_built_on_by_nothing() -> None:
    cache, text = ValueCache(10**7), "x" * 5000
    first = put_of(PLAIN, cache, {"a": text})
    first.stage()
    second = put_of(PLAIN, cache, {"a": text + "y"})
    second.stage()
    first.discard()  # the cache forgets its value
    third = put_of(PLAIN, cache, {"a": text + "yz"})
    assert only(third).patch.base_version == second.request.values[0].version
    second.discard()
    assert not only(put_of(PLAIN, cache, {"a": text + "yz"})).HasField("patch")
    third.discard()  # was never staged


@serdes
def test_a_put_is_made_again_with_whole_values(serde: ValueSerde) -> None:
    cache, text = ValueCache(10**7), "x" * 5000
    put_of(serde, cache, {"a": text}).stage()
    put = put_of(serde, cache, {"a": text + "y", "small": 1})
    put.request.precondition.if_version_match = 7
    put.stage()
    assert only_patch(put)
    assert put.make_whole()
    assert not only_patch(put)
    assert put.request.precondition.if_version_match == 7
    assert [entry.channel for entry in put.request.values] == ["a", "small"]
    place = (ChannelAssociatedData, *KEY, "a", "")
    if serde is PLAIN:
        assert serde.load(put.request.values[0].value.type, put.request.values[0].value.data, place) == text + "y"
    # It is whole already: another attempt would be refused again.
    assert not put.make_whole()
    assert not put_of(serde, cache, {"b": 1}).make_whole()


def only_patch(put: OutgoingCheckpoint) -> bool:
    return put.request.values[0].value.HasField("patch")


@serdes
@given(seed=st.integers(0, 2**64))
@settings(PATIENT, max_examples=40)
def test_values_that_are_edited_at_random_come_back_exactly(serde: ValueSerde, seed: int) -> None:
    """With forks, missing bases, failed puts, cache misses, values stored apart, and patches applied at once."""
    dice, table = random.Random(seed), Table()
    at_once_from = dice.choice([0, rows.AT_ONCE_BYTES])
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(rows, "AT_ONCE_BYTES", at_once_from)
        edit_at_random(serde, dice, table)


def edit_at_random(serde: ValueSerde, dice: random.Random, table: Table) -> None:
    caches = [ValueCache(dice.choice([0, 30_000, 10**7])) for _ in range(2)]
    kept: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {}
    written: dict[str, list[tuple[str, str, Any]]] = {}
    state: Any = {"list": [], "map": {}, "blob": b"", "small": 0}
    versions: dict[str, Any] = {channel: version() for channel in state}
    for number in range(25):
        state = copy.deepcopy(state)
        new = {channel: version() for channel in state if not kept or dice.random() < 0.6}
        versions = versions | new
        if "list" in new:
            state["list"] += [dice.randbytes(dice.randrange(400)).hex() for _ in range(dice.randrange(4))]
        if "map" in new:
            state["map"][str(dice.randrange(9))] = dice.randbytes(dice.randrange(3000)).hex()
        if "blob" in new:
            at = dice.randrange(len(state["blob"]) + 1)
            state["blob"] = state["blob"][:at] + dice.randbytes(dice.randrange(5000)) + state["blob"][at + 100 :]
        table.left_out_from = dice.choice([10**9, 1000])
        cache = dice.choice(caches)
        put = put_of(serde, cache, state, new, versions=versions, id=f"{number:04}")
        if dice.random() < 0.15:  # it fails, and the run continues from an earlier checkpoint
            put.stage()
            put.discard()
            if kept:
                state, versions = kept[dice.choice(sorted(kept))]
            continue
        flows.run(send(put), table)
        kept[f"{number:04}"] = (state, versions)
        written[f"{number:04}"] = [
            ("task", channel, copy.deepcopy(state[channel])) for channel in state if dice.random() < 0.4
        ]
        for _, channel, value in written[f"{number:04}"]:
            if channel == "list":
                value += [dice.randbytes(300).hex()]
        by_task = [(channel, value) for _, channel, value in written[f"{number:04}"]]
        flows.run(send(writes_of(serde, dice.choice(caches), by_task, beside=f"{number:04}")), table)
        if dice.random() < 0.2:
            state, versions = kept[dice.choice(sorted(kept))]
        chosen = dice.choice(sorted(kept))
        found = read(table, serde, dice.choice(caches), chosen)
        assert found.checkpoint["channel_values"] == kept[chosen][0]
        assert found.pending_writes == written[chosen]
    for checkpoint_id, (expected, expected_versions) in kept.items():
        saved = read(table, serde, ValueCache(0), checkpoint_id)
        found = saved.checkpoint
        assert (found["channel_values"], found["channel_versions"]) == (expected, expected_versions)
        assert saved.pending_writes == written[checkpoint_id]


def test_a_large_value_is_copied_once_however_many_patches_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    table, cache, dice = Table(), ValueCache(10**8), random.Random(6)
    blob = dice.randbytes(2 * MEBIBYTE)
    for number in range(10):
        at = dice.randrange(len(blob))
        blob = blob[:at] + dice.randbytes(100) + blob[at + 50 :]
        flows.run(send(put_of(PLAIN, cache, {"a": blob}, id=str(number))), table)
    copies = []

    def counted(base: bytes, instructions: bytes, size: int, crc32: int) -> bytes:
        copies.append(size)
        return apply(base, instructions, size, crc32)

    monkeypatch.setattr(rows, "apply", counted)
    afresh = ValueCache(10**8)
    assert read(table, PLAIN, afresh).checkpoint["channel_values"] == {"a": blob}
    assert copies == [len(blob)]
    # What it has read it builds on, with all of the chain.
    put = put_of(PLAIN, afresh, {"a": blob + b"end"}, id="more")
    flows.run(send(put), table)
    assert only(put).patch.base_version == table.puts["9"].channel_versions[0]
    assert read(table, PLAIN, ValueCache(0)).checkpoint["channel_values"] == {"a": blob + b"end"}
    assert afresh.channels(KEY)["a"].depth == 10


@serdes
def test_what_builds_on_a_value_that_is_gone_is_sent_whole(serde: ValueSerde) -> None:
    table, cache = Table(), ValueCache(10**7)
    flows.run(send(put_of(serde, cache, {"a": "x" * 5000}, id="1")), table)
    table.rows.clear()
    flows.run(send(put_of(serde, cache, {"a": "x" * 5001}, id="2")), table)
    flows.run(send(put_of(serde, cache, {"a": "x" * 5002}, id="3")), table)
    assert read(table, serde, cache).checkpoint["channel_values"] == {"a": "x" * 5002}
    assert read(table, serde, ValueCache(0)).checkpoint["channel_values"] == {"a": "x" * 5002}
    assert [value.HasField("patch") for value in table.rows.values()] == [False, True]


@pytest.mark.parametrize("times", [3, 1000])
def test_uploads_that_go_with_their_thread_are_sent_again(times: int) -> None:
    table, left = Table(), times

    def call(request: Any) -> Any:
        nonlocal left
        if isinstance(request, pb.PutCheckpointRequest) and left:
            left -= 1
            table.uploads.clear()
            raise BaseMissingError(thread_id="thread", channel="a")
        return table(request)

    put, data = put_of(PLAIN, ValueCache(0), {"a": bytes(3 * MEBIBYTE)}, id="1"), bytes(3 * MEBIBYTE)
    if times == 3:
        flows.run(send(put), call)
        assert read(table, PLAIN, ValueCache(0)).checkpoint["channel_values"] == {"a": data}
    else:
        with pytest.raises(BaseMissingError):
            flows.run(send(put), call)
        assert left > 980


class TestLargeValues:
    @serdes
    def test_no_message_is_larger_than_a_mebibyte_or_so(self, serde: ValueSerde) -> None:
        table, cache, dice = Table(), ValueCache(10**8), random.Random(3)
        state: dict[str, Any] = {"big": dice.randbytes(5 * MEBIBYTE), "small": dice.randbytes(1000)}
        state |= {f"many-{n}": dice.randbytes(30_000) for n in range(100)}
        put = put_of(serde, cache, state, id="1")
        assert put.goes_ahead
        flows.run(send(put), table)
        assert not put.goes_ahead
        assert table.largest <= MEBIBYTE + 64 * 1024
        assert not table.uploads
        table.left_out_from = 20_000
        assert read(table, serde, ValueCache(0)).checkpoint["channel_values"] == state
        # A small change is sent with the put.
        state["big"] = state["big"][:-10] + b"new"
        put = put_of(serde, cache, {"big": state["big"]}, id="2")
        flows.run(send(put), table)
        assert len(only(put).data) < 200

    @serdes
    def test_a_put_that_fits_goes_alone(self, serde: ValueSerde) -> None:
        put = put_of(serde, ValueCache(0), {"a": bytes(MESSAGE_BYTES - 1000)})
        assert not put.goes_ahead

    @serdes
    def test_large_patches(self, serde: ValueSerde) -> None:
        """The server reads instructions on arrival, so only sealed ones can be uploaded ahead."""
        table, cache, dice = Table(), ValueCache(10**8), random.Random(4)
        blob = dice.randbytes(8 * MEBIBYTE)
        flows.run(send(put_of(serde, cache, {"a": blob}, id="1")), table)
        blob = blob[: 6 * MEBIBYTE] + dice.randbytes(2 * MEBIBYTE)
        put = put_of(serde, cache, {"a": blob}, id="2")
        flows.run(send(put), table)
        assert only(put).HasField("parts")
        assert only(put).HasField("patch") == (serde is SEALED)
        assert read(table, serde, ValueCache(0)).checkpoint["channel_values"] == {"a": blob}
        # The next one builds on it.
        put = put_of(serde, cache, {"a": blob + b"x"}, id="3")
        flows.run(send(put), table)
        assert only(put).HasField("patch")
        assert read(table, serde, ValueCache(0)).checkpoint["channel_values"] == {"a": blob + b"x"}

    def test_all_patches_of_a_put_have_so_many_instructions(self) -> None:
        cache, dice = ValueCache(10**9), random.Random(5)
        blocks = [[dice.randbytes(600) for _ in range(500)] for _ in range(40)]
        state = {f"c{n}": b"".join(found) for n, found in enumerate(blocks)}
        put = put_of(PLAIN, cache, state)
        put.prepare()
        put.stage()
        state = {f"c{n}": b"".join(dice.sample(found, len(found))) for n, found in enumerate(blocks)}
        put = put_of(PLAIN, cache, state)
        put.prepare()
        patched = [entry.value for entry in put.request.values if entry.value.HasField("patch")]
        assert len(patched) == 16

    def test_task_writes(self) -> None:
        cache, dice = ValueCache(0), random.Random(6)
        config: Any = {"configurable": {"thread_id": "t", "checkpoint_ns": "", "checkpoint_id": "1"}}
        data = {"big": dice.randbytes(3 * MEBIBYTE), "small": dice.randbytes(5000)}
        put = encode.put_writes(PLAIN, cache, config, list(data.items()), "task", "path")
        assert put.size > 3 * MEBIBYTE
        put.prepare()
        table = Table()
        assert put.goes_ahead
        for part in put.parts():
            table(part)
        big, small = (write.value for write in put.request.writes)
        parts = table.uploads[big.parts.upload_id]
        assert SERDE.loads_typed((big.type, b"".join([parts[at] for at in sorted(parts)]))) == data["big"]
        assert SERDE.loads_typed((small.type, small.data)) == data["small"]
