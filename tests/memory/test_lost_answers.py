"""Puts whose answers are lost, between client and server or server and database: done once, and reported as done."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from langgraph.checkpoint.grpc import GrpcStore, ItemConflictError

from tests.support.flaky_link import FlakyLink
from tests.support.server_process import ServerProcess
from tests.support.until import until

PLACE = ("users", "ada")


def lose_the_answer(link: FlakyLink, onlooker: GrpcStore, key: str, put: Callable[[], Any]) -> None:
    """Makes a put, and breaks the link once it is stored, before its answer arrives."""
    link.hold_answers()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(put)
        until(lambda: onlooker.get(PLACE, key))
        link.cut()
        link.resume()
        waiting.result(60)


def check(store: GrpcStore, link: FlakyLink, onlooker: GrpcStore) -> None:
    # Each kind of put is a statement of its own, which a connection prepares on first use: that has an answer, too.
    store.put(PLACE, "warm", {}, if_version_match=0)
    lose_the_answer(link, onlooker, "first", lambda: store.put(PLACE, "first", {"n": 1}, if_version_match=0))
    item: Any = store.get(PLACE, "first")
    assert item.value == {"n": 1}
    store.put(PLACE, "first", {"n": 2}, if_version_match=item.version)
    with pytest.raises(ItemConflictError):
        store.put(PLACE, "first", {"n": 3}, if_version_match=item.version)
    store.put(PLACE, "warm", {})
    lose_the_answer(link, onlooker, "plain", lambda: store.put(PLACE, "plain", {"n": 1}))
    assert {found.key: found.value.get("n") for found in onlooker.search(PLACE)} == {
        "first": 2,
        "plain": 1,
        "warm": None,
    }


def test_on_the_way_from_the_server(database_url: str, tmp_path: Path) -> None:
    with (
        ServerProcess("--database-url", database_url, log_dir=tmp_path) as server,
        FlakyLink(server.target) as link,
        GrpcStore(link.target) as store,
        GrpcStore(server.target) as onlooker,
    ):
        check(store, link, onlooker)


def test_on_the_way_from_the_database(database_url: str, tmp_path: Path) -> None:
    url = urlsplit(database_url)
    socket = Path(parse_qs(url.query)["host"][0], ".s.PGSQL.5432")
    folders = [tmp_path / "direct", tmp_path / "through"]
    for folder in folders:
        folder.mkdir()
    with FlakyLink(f"unix:{socket}") as link:
        host, port = link.target.split(":")
        through = url._replace(query=f"host={host}&port={port}").geturl()
        with (
            ServerProcess("--database-url", database_url, log_dir=folders[0]) as direct,
            ServerProcess("--database-url", through, log_dir=folders[1]) as server,
            GrpcStore(server.target) as store,
            GrpcStore(direct.target) as onlooker,
        ):
            check(store, link, onlooker)
