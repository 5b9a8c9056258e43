"""Values of any size: exact to the byte, and stored in proportion to what changed."""

from __future__ import annotations

import copy
import operator
import os
import random
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Annotated, Any, TypedDict

import asyncpg
import pytest
from langgraph.checkpoint.grpc import CorruptValueError, Encryption, GrpcSaver, InvalidArgumentError
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command

from tests.support import graphs
from tests.support.calls import Calls, checkpoint, config_of
from tests.support.comparison import FLAVOURS, Compare, Flavour, Play, Way, every_way_of_much_work
from tests.support.local_server import LocalServer
from tests.support.server_process import ServerProcess

MEBIBYTE = 1024 * 1024


class Database:
    """The server's data, read directly from PostgreSQL."""

    def __init__(self, url: str) -> None:
        self._url = url

    async def fetch_value(self, sql: str) -> Any:
        connection = await asyncpg.connect(self._url)
        try:
            return await connection.fetchval(sql)
        finally:
            await connection.close()

    async def value_bytes(self) -> int:
        """The size of all values, writes and parts, in bytes."""
        tables = [
            f"(SELECT coalesce(sum(octet_length(data)), 0) FROM checkpointd.{table})"
            for table in ("channel_values", "task_writes", "value_parts")
        ]
        return int(await self.fetch_value(f"SELECT {' + '.join(tables)}"))

    async def patches(self) -> int:
        """The number of values that are patches."""
        return int(
            await self.fetch_value("SELECT count(*) FROM checkpointd.channel_values WHERE base_version IS NOT NULL")
        )


@pytest.fixture
def database(database_url: str) -> Database:
    return Database(database_url)


@pytest.fixture(params=FLAVOURS)
async def own(local_server: LocalServer, request: pytest.FixtureRequest) -> AsyncIterator[Calls]:
    """A saver's methods on a server of the test's own."""
    async with GrpcSaver(local_server.target) as saver:
        yield Calls(saver, request.param)


def version(number: int) -> str:
    """A unique version of a channel, as savers make them."""
    return f"{number:032}.{int.from_bytes(os.urandom(7)):017}"


def text(dice: random.Random, size: int) -> str:
    """Text of about this many bytes, no more repetitive than people's."""
    words = [format(dice.getrandbits(24), "x") for _ in range(size // 7 + 1)]
    return " ".join(words)[:size]


def state(dice: random.Random) -> dict[str, Any]:
    """A nested value of some hundred KB, with every kind of leaf."""
    return {
        "messages": [{"id": n, "text": text(dice, dice.randrange(10, 4000))} for n in range(60)],
        "blob": dice.randbytes(dice.randrange(30_000, 90_000)),
        "numbers": [dice.random() for _ in range(5000)],
        "same": "x" * dice.randrange(20_000, 60_000),
        "deep": {"a": {"b": {"c": [text(dice, 3000), None, True]}}},
    }


def edit(dice: random.Random, old: dict[str, Any]) -> dict[str, Any]:
    """A value that differs somewhere: grown, shrunk, overwritten, turned around."""
    new = copy.deepcopy(old)
    messages = new["messages"]
    match dice.randrange(9):
        case 0:
            messages.append({"id": -1, "text": text(dice, 1000)})
        case 1:
            messages.insert(0, {"id": -2, "text": text(dice, 100)})
        case 2 if messages:
            messages.pop(dice.randrange(len(messages)))
        case 3 if messages:
            messages[dice.randrange(len(messages))]["text"] += "!"
        case 4:
            at = dice.randrange(len(new["blob"]))
            new["blob"] = new["blob"][:at] + dice.randbytes(dice.randrange(3)) + new["blob"][at + dice.randrange(3) :]
        case 5:
            new["numbers"][dice.randrange(len(new["numbers"]))] = dice.random()
        case 6:
            new["same"] = new["same"][: dice.randrange(len(new["same"]))] + "xy" * dice.randrange(20)
        case 7:
            new["deep"]["a"]["b"]["c"] = [text(dice, dice.randrange(40_000))]
        case _:
            messages.reverse()
    return new


async def test_edits_anywhere_come_back_exactly(calls: Calls, shared_server: ServerProcess) -> None:
    seed = random.randrange(2**32)
    dice = random.Random(seed)
    kept: dict[str, dict[str, Any]] = {}
    value = state(dice)
    for number in range(25):
        own_id = f"{number:03}"
        kept[own_id] = value
        await calls.put(checkpoint(own_id, {"state": value}, {"state": version(number)}))
        await calls.write(own_id, [("state", value["messages"]), ("blob", value["blob"])])
        value = edit(dice, value)
    async with GrpcSaver(shared_server.target) as fresh:
        others = Calls(fresh, calls.flavour)
        others.thread_id = calls.thread_id
        listed = await others.listed(config_of(calls.thread_id))
        assert len(listed) == len(kept)
        for saved in listed:
            expected = kept[saved.checkpoint["id"]]
            assert saved.checkpoint["channel_values"] == {"state": expected}, f"seed {seed}"
            assert [value for _, _, value in saved.pending_writes or ()] == [expected["messages"], expected["blob"]]
        for own_id in dice.sample(sorted(kept), 5):
            assert (await others.get(own_id)).checkpoint["channel_values"] == {"state": kept[own_id]}, f"seed {seed}"


class Growing(TypedDict):
    items: Annotated[list[str], operator.add]


def growing_graph(saver: GrpcSaver, turns: int, size: int) -> Any:
    """A graph that adds an item in each step, for as many steps as there are turns."""
    dice = random.Random(1)

    def add(state: Growing) -> dict[str, list[str]]:
        return {"items": [text(dice, size)]}

    def route(state: Growing) -> str:
        return END if len(state["items"]) % turns == 0 else "add"

    builder = StateGraph(Growing)
    builder.add_node("add", add)
    builder.add_edge(START, "add")
    builder.add_conditional_edges("add", route)
    return builder.compile(checkpointer=saver)


async def test_a_list_that_grows_is_stored_once(local_server: LocalServer, database: Database) -> None:
    with GrpcSaver(local_server.target) as saver:
        graph = growing_graph(saver, 100, 1000)
        config: Any = {"configurable": {"thread_id": "t"}, "recursion_limit": 1000}
        graph.invoke({"items": []}, config)
        # Stored whole each time, it would be 5 MB.
        assert await database.value_bytes() < 800_000
        history = list(graph.get_state_history(config))
        assert [len(saved.values["items"]) for saved in history[:-1]] == list(range(100, -1, -1))
        assert all(history[0].values["items"][: len(h.values["items"])] == h.values["items"] for h in history[:-1])


class Document(TypedDict):
    text: str
    edits: int


@pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "encrypted"])
@pytest.mark.parametrize("flavour", FLAVOURS)
async def test_a_node_that_returns_a_large_value_with_little_changed_costs_little(
    server: ServerProcess, database: Database, flavour: Flavour, encrypted: bool
) -> None:
    """LangGraph saves it twice: as the task's write, and as the channel's new value."""
    size, steps = 200_000, 30
    whole = text(random.Random(3), size)

    def edit(state: Document) -> Document:
        at = state["edits"] * 1000
        changed = state["text"] if state["edits"] % 2 else f"{state['text'][:at]}!{state['text'][at + 1 :]}"
        return {"text": changed, "edits": state["edits"] + 1}

    builder = StateGraph(Document)
    builder.add_node("edit", edit)
    builder.add_edge(START, "edit")
    builder.add_conditional_edges("edit", lambda state: END if state["edits"] == steps else "edit")
    encryption = Encryption(keys={"a": bytes(32)}, current="a") if encrypted else None
    async with GrpcSaver(server.target, encryption=encryption) as saver:
        graph = builder.compile(checkpointer=saver)
        config: Any = {"configurable": {"thread_id": "t"}, "recursion_limit": 100}
        given: Any = {"text": whole, "edits": 0}
        state = await graph.ainvoke(given, config) if flavour == "ainvoke" else graph.invoke(given, config)
        # The input, the value it became, and the first tasks' writes, which had nothing to be compared with.
        assert await database.value_bytes() < 6 * size
    async with GrpcSaver(server.target, encryption=encryption) as fresh:
        history = [saved async for saved in fresh.alist(config)]
    assert history[0].checkpoint["channel_values"]["text"] == state["text"]
    for saved, later in zip(history[1:], history, strict=False):
        if saved.metadata["source"] == "loop" and saved.metadata["step"] > 0:
            written = {channel: value for _, channel, value in saved.pending_writes or ()}
            assert written["text"] == later.checkpoint["channel_values"]["text"]


@pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "encrypted"])
async def test_a_task_write_whose_patch_is_large_itself(
    server: ServerProcess, database: Database, encrypted: bool
) -> None:
    """Sealed, it is uploaded ahead in parts. Plain, the whole value is sent, since the server reads instructions."""
    dice = random.Random(11)
    blob = dice.randbytes(4 * MEBIBYTE)
    written = blob[:MEBIBYTE] + dice.randbytes(3 * MEBIBYTE // 2) + blob[5 * MEBIBYTE // 2 :]
    encryption = Encryption(keys={"a": bytes(32)}, current="a") if encrypted else None
    async with GrpcSaver(server.target, encryption=encryption) as saver:
        calls = Calls(saver, "ainvoke")
        await calls.put(checkpoint("1", {"blob": blob}, {"blob": version(1)}))
        await calls.write("1", [("blob", written), ("blob", blob)])
        await calls.put(checkpoint("2", {}, {}), parent="1")
        copied = str(uuid.uuid4())
        await calls.do("copy_thread", calls.thread_id, copied)
    patches = "SELECT count(*) FROM checkpointd.task_writes WHERE base_version IS NOT NULL AND upload_id IS NOT NULL"
    assert await database.fetch_value(patches) == (2 if encrypted else 0)
    async with GrpcSaver(server.target, encryption=encryption) as fresh:
        for thread_id in (calls.thread_id, copied):
            others = Calls(fresh, "ainvoke")
            others.thread_id = thread_id
            saved = await others.get("1")
            assert saved.checkpoint["channel_values"] == {"blob": blob}
            assert [value for _, _, value in saved.pending_writes or ()] == [written, blob]
            assert [len(saved.pending_writes or ()) for saved in await others.listed(config_of(thread_id))] == [0, 2]
            await others.do("prune", [thread_id])
    assert await database.value_bytes() == 0


@every_way_of_much_work
def test_a_graph_whose_state_is_large(compare: Compare, way: Way) -> None:
    async def scenario(play: Play) -> None:
        agent = play.on(graphs.fan_out(play.ledger, asks=True).compile(checkpointer=play.saver))
        items = [name + text(random.Random(name), 30_000) for name in "bcd"]
        await agent.invoke({"items": items})
        await agent.invoke(Command(resume=text(random.Random(9), 50_000)))
        await agent.invoke({"items": [text(random.Random(10), 1_200_000)]})
        assert await agent.history()

    compare(scenario, way)


async def test_another_client_sends_only_what_it_changed(
    own: Calls, local_server: LocalServer, database: Database
) -> None:
    dice = random.Random(2)
    items = [text(dice, 1000) for _ in range(3000)]
    await own.put(checkpoint("1", {"items": items}, {"items": version(1)}))
    before = await database.value_bytes()
    async with GrpcSaver(local_server.target) as fresh:
        others = Calls(fresh, own.flavour)
        others.thread_id = own.thread_id
        found = (await others.get()).checkpoint["channel_values"]["items"]
        assert found == items
        found[1500] = text(dice, 1000)
        await others.put(checkpoint("2", {"items": found}, {"items": version(2)}))
        assert (await own.get()).checkpoint["channel_values"]["items"] == found
    assert await database.value_bytes() - before < 2000


@pytest.mark.parametrize("size", [100_000, 5_000_000], ids=["with-the-put", "ahead-of-it"])
async def test_what_builds_on_a_value_that_is_lost_is_sent_whole(own: Calls, database: Database, size: int) -> None:
    value = random.Random(4).randbytes(size)
    await own.put(checkpoint("1", {"blob": value}, {"blob": version(1)}))
    await database.fetch_value("DELETE FROM checkpointd.channel_values")
    await database.fetch_value("DELETE FROM checkpointd.value_parts")
    await own.put(checkpoint("2", {"blob": value[:-1]}, {"blob": version(2)}))
    await own.write("2", [("blob", value)])
    await own.put(checkpoint("3", {"blob": value[:-2]}, {"blob": version(3)}))
    assert await database.patches() == 1
    for number in (2, 3):
        saved = await own.get(str(number))
        assert saved.checkpoint["channel_values"] == {"blob": value[: 1 - number]}
    assert (await own.get("2")).pending_writes == [("task", "blob", value)]


async def test_what_is_broken_in_the_database_is_never_shown_as_a_value(
    own: Calls, local_server: LocalServer, database: Database
) -> None:
    """A patch's checksum covers everything that the value is made of."""
    value = random.Random(5).randbytes(50_000)
    await own.put(checkpoint("1", {"blob": value}, {"blob": version(1)}))
    await own.put(checkpoint("2", {"blob": value + b"more"}, {"blob": version(2)}))
    assert await database.patches() == 1
    await database.fetch_value("UPDATE checkpointd.channel_values SET data = set_byte(data, 9, get_byte(data, 9) # 1)")
    async with GrpcSaver(local_server.target) as fresh:
        others = Calls(fresh, own.flavour)
        others.thread_id = own.thread_id
        with pytest.raises(CorruptValueError):
            await others.get()
        with pytest.raises(CorruptValueError):
            await others.listed(config_of(own.thread_id))
        await database.fetch_value("DELETE FROM checkpointd.channel_values WHERE base_version IS NULL")
        with pytest.raises(CorruptValueError, match="builds on is missing"):
            await others.get()


@pytest.mark.long
@pytest.mark.parametrize("flavour", ["invoke", "ainvoke"])
async def test_a_hundred_megabytes_there_and_back(server: ServerProcess, flavour: Flavour) -> None:
    value = os.urandom(MEBIBYTE) * 50 + os.urandom(50 * MEBIBYTE)
    async with GrpcSaver(server.target) as saver:
        calls = Calls(saver, flavour)
        await calls.put(checkpoint("1", {"blob": value}))
        await calls.write("1", [("blob", value[1:])])
        saved = await calls.get()
    assert saved.checkpoint["channel_values"]["blob"] == value
    assert saved.pending_writes is not None
    assert saved.pending_writes[0][2] == value[1:]
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    peak = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
    assert peak < 400 * 1024, f"{peak} KiB"


async def test_many_values_that_are_small_each(own: Calls) -> None:
    dice = random.Random(6)
    values: dict[str, Any] = {f"channel-{n}": dice.randbytes(dice.randrange(40_000)) for n in range(300)}
    await own.put(checkpoint("1", values))
    await own.write("1", list(values.items()))
    saved = await own.get()
    assert saved.checkpoint["channel_values"] == values
    assert [value for _, _, value in saved.pending_writes or ()] == list(values.values())
    assert (await own.listed(None))[0].checkpoint["channel_values"] == values


async def test_the_history_of_a_channel_with_large_writes(own: Calls) -> None:
    dice = random.Random(7)
    seed, writes = dice.randbytes(3 * MEBIBYTE), [dice.randbytes(700_000) for _ in range(6)]
    await own.put(checkpoint("0", {"log": seed}))
    for number, write in enumerate(writes):
        await own.write(str(number), [("log", write)])
        await own.put(checkpoint(str(number + 1), {}, {"log": number + 2}), parent=str(number), new={"log": number + 2})
    history = (await own.delta_history(["log"], "6"))["log"]
    assert history["seed"] == seed
    assert [value for _, _, value in history["writes"]] == writes


async def test_a_thread_is_listed_while_it_changes(own: Calls, local_server: LocalServer) -> None:
    dice = random.Random(8)
    for number in range(12):
        await own.put(checkpoint(f"{number:02}", {"blob": dice.randbytes(1_500_000)}, {"blob": number}))
    seen: list[str] = []
    with GrpcSaver(local_server.target) as other, GrpcSaver(local_server.target) as reader:
        for saved in reader.list(config_of(own.thread_id)):
            seen.append(saved.checkpoint["id"])
            if len(seen) == 2:
                other.delete_thread(own.thread_id)
                other.put(config_of(own.thread_id), checkpoint("01", {"blob": b"new"}, {"blob": 99}), {}, {"blob": 99})
            if saved.checkpoint["id"] == "01":
                assert saved.checkpoint["channel_values"] == {"blob": b"new"}
    # Deleted ones are left out: at most those of the current page are still there.
    assert seen[:2] == ["11", "10"]
    assert seen == sorted(seen, reverse=True)


@pytest.fixture
def narrow(database_url: str, tmp_path: Path) -> Iterator[ServerProcess]:
    """A server that accepts no value of more than 1 MiB."""
    options = ("--database-url", database_url, "--max-value-bytes", str(MEBIBYTE))
    with ServerProcess(*options, log_dir=tmp_path) as process:
        yield process


@pytest.mark.parametrize("flavour", FLAVOURS)
async def test_a_value_beyond_the_ceiling_is_refused_by_name(
    narrow: ServerProcess, database: Database, flavour: Flavour
) -> None:
    async with GrpcSaver(narrow.target) as saver:
        calls = Calls(saver, flavour)
        with pytest.raises(
            InvalidArgumentError, match=r"'blob' has a value of 2000000 bytes.*1048576.*max-value-bytes"
        ):
            await calls.put(checkpoint("1", {"blob": os.urandom(2_000_000), "small": 1}))
        with pytest.raises(
            InvalidArgumentError, match=r"'blob' has a value of 2000000 bytes.*1048576.*max-value-bytes"
        ):
            await calls.write("1", [("blob", os.urandom(2_000_000))])
        assert await calls.find(config_of(calls.thread_id)) is None
        await calls.put(checkpoint("1", {"blob": os.urandom(900_000)}))
    assert await database.fetch_value("SELECT count(*) FROM checkpointd.task_writes") == 0
