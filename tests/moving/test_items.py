"""Items of long-term memory travel with the threads, or alone: exactly, and resumable after a kill."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from click.testing import Result
from langgraph.checkpoint.grpc import GrpcStore
from langgraph.store.base import PutOp

from checkpointd.v1 import store_service_pb2 as pb
from checkpointd.v1.store_service_pb2_grpc import StoreServiceStub
from checkpointd_server.moving.export_file import ExportReader, ThreadEntry
from tests.moving.interruptions import fill, report_of
from tests.support.api_keys import key_entry
from tests.support.embeddings import DIMS, embed
from tests.support.server_process import ServerProcess, clean_environment
from tests.support.until import until

Command = Callable[..., Result]
NewServer = Callable[..., str]

STORE: Any = {
    "index": {"dims": DIMS, "embed": embed, "fields": ["text", "list[*]"]},
    "text": {"fields": ["text"], "language": "english"},
}
VALUES: dict[tuple[tuple[str, ...], str], dict[str, Any]] = {
    (("users", "42"), "profile"): {"name": "Ada", "text": "She doesn't like 'quotes' \\ backslashes, running or ran"},
    (("users", "42", "memories"), "long"): {"text": "tea and coffee", "list": ["one", "two", "three"]},
    (("users", "42", "memories"), "exact"): {
        "inf": float("inf"),
        "big": 2**63 + 5,
        "nul": "\0",
        "bytes": b"\xff",
        "t": (1, 2),
    },
    (("users", "7"), "profile"): {"name": "Lin", "text": "likes mathematics"},
    (("a\x01b", "ü\U0010ffff"), "\x02 key"): {"text": "odd names"},
}


@pytest.fixture
def source(new_server: NewServer) -> str:
    """The address of a server with some threads and items."""
    target = new_server()
    fill(target, 2)
    with GrpcStore(target, **STORE) as store:
        for (namespace, key), value in VALUES.items():
            store.put(namespace, key, value)
        store.put(("users", "7"), "soon", {"text": "gone in a while"}, ttl=60.5)
        store.put(("users", "7"), "again", {"text": "first"}, index=False)
        store.put(("users", "7"), "again", {"text": "second"}, index=False)
    return target


def listed(target: str, *prefix: str) -> list[pb.WholeItem]:
    """Returns all items below a namespace, as the server lists them, without their versions."""
    with grpc.insecure_channel(target) as channel:
        stub: Any = StoreServiceStub(channel)
        found = list(stub.ListItems(pb.ListItemsRequest(namespace_prefix=prefix, page_size=1000)).items)
    for one in found:
        one.item.ClearField("version")
    return found


def keys(items: list[pb.WholeItem]) -> list[str]:
    return [item.item.key for item in items]


def test_all_that_belongs_to_them_travels(command: Command, source: str, new_server: NewServer, tmp_path: Path) -> None:
    other, file = new_server(), tmp_path / "all.export"
    report = report_of(command("export", file, "--target", source, "--json"))
    assert (report["threads"], report["items"], report["failed_items"]) == (2, 7, {})
    again = report_of(command("import", file, "--target", other, "--json"))
    assert again == report
    assert listed(other) == listed(source)
    assert any(item.vectors for item in listed(other))
    assert any(item.words for item in listed(other))
    with GrpcStore(source, **STORE) as ours, GrpcStore(other, **STORE) as theirs:
        for namespace, key in VALUES:
            assert theirs.get(namespace, key, refresh_ttl=False) == ours.get(namespace, key, refresh_ttl=False)
        for query in ("coffee", "quotes run", "three", None):
            found = [store.search((), query=query, refresh_ttl=False) for store in (ours, theirs)]
            assert found[0] == found[1] != []
        theirs.put(("users", "7"), "profile", {"text": "changed since"})
    once_more = report_of(command("import", file, "--target", other, "--json", code=1))
    assert (once_more["items"], once_more["items_there_already"]) == (0, 6)
    assert list(once_more["failed_items"]) == ['item ["users", "7", "profile"]']
    command("import", file, "--target", other, "--replace", "--yes")
    assert listed(other) == listed(source)


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        (["--namespace", "users.42"], ["profile", "exact", "long"]),
        (
            ["--namespace", '["users", "42", "memories"]', "--namespace", "users.7"],
            ["exact", "long", "again", "profile", "soon"],
        ),
        (["--namespace", "users.42.memories", "--namespace", "users"], None),
        (["--namespace", "user"], []),
        (["--no-items"], []),
        (["--thread", "thread-0"], []),
        (["--thread", "thread-0", "--items"], None),
    ],
)
def test_some_of_them_travel(
    options: list[str], wanted: list[str] | None, command: Command, source: str, new_server: NewServer, tmp_path: Path
) -> None:
    others, every, some = [new_server(), new_server()], tmp_path / "every.export", tmp_path / "some.export"
    command("export", some, "--target", source, *options)
    command("import", some, "--target", others[0])
    command("export", every, "--target", source)
    command("import", every, "--target", others[1], *options)
    found = keys(listed(others[0]))
    if wanted is not None:
        assert found == wanted
    elif "--thread" in options:
        assert listed(others[0]) == listed(source)
    else:
        assert listed(others[0]) == listed(source, "users")
    assert listed(others[1]) == listed(others[0])


def test_without_threads_and_vectors(command: Command, source: str, new_server: NewServer, tmp_path: Path) -> None:
    other, file = new_server(), tmp_path / "items.export"
    report = report_of(command("export", file, "--target", source, "--no-threads", "--no-vectors", "--json"))
    assert (report["threads"], report["items"]) == (0, 7)
    command("import", file, "--target", other)
    for there, here in zip(listed(other), listed(source), strict=True):
        assert there.item == here.item
        assert not there.vectors
    # They still count as the same items.
    assert report_of(command("import", file, "--target", source, "--json"))["items_there_already"] == 7


def test_redaction_keeps_names_and_nothing_else(
    command: Command, source: str, new_server: NewServer, tmp_path: Path
) -> None:
    other, file = new_server(), tmp_path / "redacted.export"
    command("export", file, "--target", source, "--redact")
    for word in (b"quotes", b"coffe", b"mathemat", b"Ada", b"beside"):
        assert word not in file.read_bytes()
    command("import", file, "--target", other, "--allow-redacted")
    assert keys(listed(other)) == keys(listed(source))
    assert {item.item.value.type for item in listed(other)} == {"null"}


def put_many(target: str, count: int) -> None:
    with GrpcStore(target) as store:
        for some in range(0, count, 100):
            store.batch(
                PutOp(("many", str(number % 7)), f"{number:05}", {"text": "x" * 500, "number": number})
                for number in range(some, min(some + 100, count))
            )


def import_until_killed(file: Path, target: str, folder: Path) -> int:
    """Begins an import, kills it when it has stored something, and returns how many items it has stored."""
    importing = [sys.executable, "-m", "checkpointd_server.cli", "import", str(file), "--target", target]
    with subprocess.Popen(importing, env=clean_environment(), cwd=folder) as process, GrpcStore(target) as store:
        until(lambda: store.count(()) > 200)
        process.kill()
        process.wait()
        return store.count(())


def test_an_import_that_is_killed_goes_on(command: Command, new_server: NewServer, tmp_path: Path) -> None:
    source, file, stored = new_server(), tmp_path / "many.export", 3000
    put_many(source, stored)
    command("export", file, "--target", source)
    # On a busy machine, the kill may come too late.
    for other in (new_server() for _ in range(10)):
        stored = import_until_killed(file, other, tmp_path)
        if stored < 2000:
            break
    report = report_of(command("import", file, "--target", other, "--json"))
    # The server may have stored more since: what it had received before.
    assert 200 < stored <= report["items_there_already"] < 3000
    assert report["items"] == 3000 - report["items_there_already"]
    assert listed(other, "many", "3") == listed(source, "many", "3")


def test_an_export_goes_on_and_reads_again_what_was_changed(
    command: Command, source: str, new_server: NewServer, tmp_path: Path
) -> None:
    other, whole, file = new_server(), tmp_path / "whole.export", tmp_path / "all.export"
    command("export", whole, "--target", source)
    with whole.open("rb") as opened:
        reader = ExportReader(opened)
        items = 0
        for entry in reader.entries():
            if isinstance(entry, ThreadEntry):
                continue
            items += 1
            if items == 4:
                break
        file.with_name("all.export.partial").write_bytes(whole.read_bytes()[: reader.offset + 10])
    with GrpcStore(source) as store:
        store.put(("users", "42"), "profile", {"name": "somebody else"})
        store.delete(("users", "42", "memories"), "long")
        store.put(("users", "42"), "new", {"name": "new"})
    report = report_of(command("export", file, "--target", source, "--json"))
    assert report["read_again"] == 2
    assert report["items_there_already"] == 2
    command("import", file, "--target", other)
    assert listed(other) == listed(source)


def test_an_expired_item_stays_behind(command: Command, source: str, new_server: NewServer, tmp_path: Path) -> None:
    other, file = new_server(), tmp_path / "short.export"
    with GrpcStore(source) as store:
        store.put(("short",), "a", {"b": 1}, ttl=0.05)
    command("export", file, "--target", source, "--namespace", "short", "--no-threads")
    with GrpcStore(source) as store:
        until(lambda: store.get(("short",), "a", refresh_ttl=False) is None)
    report = report_of(command("import", file, "--target", other, "--json"))
    assert (report["items"], report["items_expired"]) == (0, 1)
    assert listed(other) == []


def test_a_token_that_may_not_read_them_is_told(command: Command, database_url: str, tmp_path: Path) -> None:
    keys_file = tmp_path / "keys.toml"
    keys_file.write_text(
        key_entry("ckd_threads", "acme", "read", "write") + key_entry("ckd_all", "acme", "read", "store:read")
    )
    with ServerProcess("--database-url", database_url, "--keys-file", str(keys_file), log_dir=tmp_path) as server:
        reach = ("--target", server.target, "--token")
        refused = command("export", "all.export", *reach, "ckd_threads", code=1)
        assert "--no-items leaves long-term memory out" in refused.stderr
        assert not list(tmp_path.glob("all.export*"))
        command("export", "all.export", *reach, "ckd_threads", "--no-items")
        command("export", "both.export", *reach, "ckd_all")


@pytest.mark.parametrize(
    "options",
    [
        ["--thread", "a", "--no-threads"],
        ["--namespace", "a", "--no-items"],
        ["--no-threads", "--no-items"],
        ["--namespace", ""],
        ["--namespace", "a..b"],
        ["--namespace", "[1]"],
        ["--namespace", "[" * 100_000],
        ["--namespace", '["\\ud800"]'],
        ["--thread", "\udc80"],
    ],
    ids=range(9),
)
def test_options_that_make_no_sense_are_refused(options: list[str], command: Command, tmp_path: Path) -> None:
    refused = command("export", tmp_path / "all.export", "--target", "127.0.0.1:1", *options, code=2)
    assert options[0] in refused.stderr
