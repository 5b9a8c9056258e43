"""Threads of the stock savers come to a server exactly, go on there from where they stood, and get out again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from click.testing import Result
from langgraph.checkpoint.grpc import GrpcSaver
from langgraph.checkpoint.postgres import PostgresSaver
from langgraph.checkpoint.sqlite import SqliteSaver

from tests.moving.played import KINDS, contents, go_on

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
                # SqliteSaver leaves the snapshot of a delta channel out of checkpoints that it has not changed in; the
                # value of a channel at a version is one and the same for PostgresSaver and for us.
                values = found.checkpoint["channel_values"]
                for channel in values.keys() - expected.checkpoint["channel_values"].keys():
                    assert type(values.pop(channel)).__name__ == "_DeltaSnapshot"
                assert found == expected, name
        for name in KINDS:
            assert go_on(ours, name) == go_on(stock, name), name


def test_everything_gets_out_to_postgres_and_goes_on_as_here(
    command: Command, new_server: Callable[[], str], stock_url: str, empty_stock_url: str
) -> None:
    target = new_server()
    command("import", "--from-postgres", stock_url, "--target", target)
    with GrpcSaver.from_conn_string(target) as ours:
        for name in KINDS:  # so that there is something of ours, too: patches, and values that JSON hasn't
            go_on(ours, name)
        report = json.loads(command("export", "--to-postgres", empty_stock_url, "--target", target, "--json").stdout)
        assert (report["threads"], report["failed"]) == (len(KINDS), {})
        with PostgresSaver.from_conn_string(empty_stock_url) as stock:
            for name in KINDS:
                assert contents(stock, name) == contents(ours, name), name
