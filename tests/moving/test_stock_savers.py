"""Threads of the stock savers move to a server exactly, continue there where they stopped, and move out again."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from langgraph.checkpoint.grpc import GrpcSaver
from langgraph.checkpoint.postgres import PostgresSaver
from langgraph.checkpoint.sqlite import SqliteSaver

from tests.moving.played import KINDS, contents, go_on
from tests.support.calls import checkpoint, config_of

Command = Callable[..., Result]


def test_everything_comes_from_postgres_and_goes_on_as_there(
    command: Command, new_server: Callable[[], str], stock_url: str
) -> None:
    target = new_server()
    report = json.loads(command("import", "--from-postgres", stock_url, "--target", target, "--json").stdout)
    assert (report["threads"], report["failed"]) == (len(KINDS), {})
    with PostgresSaver.from_conn_string(stock_url) as stock, GrpcSaver.from_conn_string(target) as ours:
        assert report["checkpoints"] == sum(len(contents(stock, name)) for name in KINDS)
        for name in KINDS:
            assert contents(ours, name) == contents(stock, name), name
        for name in KINDS:
            assert go_on(ours, name) == go_on(stock, name), name


def test_everything_comes_from_sqlite_and_goes_on_as_there(
    command: Command, new_server: Callable[[], str], sqlite_file: Path
) -> None:
    target = new_server()
    report = json.loads(command("import", "--from-sqlite", sqlite_file, "--target", target, "--json").stdout)
    assert (report["threads"], report["failed"]) == (len(KINDS), {})
    with SqliteSaver.from_conn_string(str(sqlite_file)) as stock, GrpcSaver.from_conn_string(target) as ours:
        for name in KINDS:
            for found, expected in zip(contents(ours, name), contents(stock, name), strict=True):
                # SqliteSaver omits a delta channel's snapshot from checkpoints in which the channel hasn't changed; for
                # PostgresSaver and for us the value of a channel at a version is always the same.
                values = found.checkpoint["channel_values"]
                for channel in values.keys() - expected.checkpoint["channel_values"].keys():
                    assert type(values.pop(channel)).__name__ == "_DeltaSnapshot"
                assert found == expected, name
        for name in KINDS:
            assert go_on(ours, name) == go_on(stock, name), name


def test_where_a_file_has_two_values_of_one_version_the_newest_counts(
    command: Command, new_server: Callable[[], str], tmp_path: Path
) -> None:
    target, file = new_server(), tmp_path / "disputed.sqlite"
    with SqliteSaver.from_conn_string(str(file)) as stock, GrpcSaver.from_conn_string(target) as ours:
        for step, value in enumerate(["old", "new"]):
            stock.put(config_of("disputed"), checkpoint(f"{step}", {"a": value}, {"a": 1}), {}, {"a": 1})
        command("import", "--from-sqlite", file, "--target", target)
        assert [one.checkpoint["channel_values"]["a"] for one in contents(ours, "disputed")] == ["new", "new"]


@pytest.mark.parametrize(
    ("breakage", "problem"),
    [
        ("UPDATE checkpoints SET type = 'msgpack+aes'", "is of type 'msgpack+aes', which only the saver that wrote it"),
        ("UPDATE checkpoints SET checkpoint = x'93010203'", "can't be read: its msgpack is not a checkpoint"),
    ],
)
def test_what_can_not_come_along_is_told_and_the_rest_comes(
    breakage: str, problem: str, command: Command, new_server: Callable[[], str], sqlite_file: Path
) -> None:
    target = new_server()
    with sqlite3.connect(sqlite_file) as connection:
        connection.execute(f"{breakage} WHERE thread_id = 'line'")
    connection.close()
    told = command("import", "--from-sqlite", sqlite_file, "--target", target, code=1)
    assert "thread 'line', checkpoint" in told.stderr
    assert problem in told.stderr
    with GrpcSaver.from_conn_string(target) as ours:
        assert not contents(ours, "line")
        assert all(contents(ours, name) for name in KINDS if name != "line")


@pytest.mark.parametrize("source", ["nothing there", "no database", "other tables"])
def test_what_is_no_stock_savers_is_one_clear_line(
    source: str, command: Command, empty_database_url: str, tmp_path: Path
) -> None:
    url = {"nothing there": "postgresql://u:hidden@127.0.0.1:1/x", "no database": empty_database_url}.get(source)
    file = tmp_path / "other.sqlite"
    with sqlite3.connect(file) as connection:
        connection.execute("CREATE TABLE cats (name TEXT)")
    connection.close()
    wanted = ("--from-sqlite", file) if url is None else ("--from-postgres", url)
    told = command("import", *wanted, "--target", "127.0.0.1:1", code=1)
    assert len(told.stderr.splitlines()) == 1
    assert "hidden" not in told.stderr
    assert re.search("can't be connected to|has no table checkpoints|has no tables of SqliteSaver", told.stderr)


def test_everything_gets_out_to_postgres_and_goes_on_as_here(
    command: Command, new_server: Callable[[], str], stock_url: str, empty_stock_url: str
) -> None:
    target = new_server()
    command("import", "--from-postgres", stock_url, "--target", target)
    with GrpcSaver.from_conn_string(target) as ours:
        for name in KINDS:  # adds our own kind of data: patches, and values that JSON can't represent
            go_on(ours, name)
        report = json.loads(command("export", "--to-postgres", empty_stock_url, "--target", target, "--json").stdout)
        assert (report["threads"], report["failed"]) == (len(KINDS), {})
        with PostgresSaver.from_conn_string(empty_stock_url) as stock:
            for name in KINDS:
                assert contents(stock, name) == contents(ours, name), name


def test_graphs_on_the_stock_saver_go_on_from_where_ours_stood(
    command: Command, played_server: str, empty_stock_url: str
) -> None:
    command("export", "--to-postgres", empty_stock_url, "--target", played_server)
    with (
        GrpcSaver.from_conn_string(played_server) as ours,
        PostgresSaver.from_conn_string(empty_stock_url) as stock,
    ):
        for name in KINDS:
            assert go_on(stock, name) == go_on(ours, name), name
