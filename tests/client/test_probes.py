"""Asking whether the server is there: `ping`, and the `setup` that code for LangGraph's own savers calls."""

from __future__ import annotations

import asyncio
import warnings
from pathlib import Path

import pytest
from langgraph.checkpoint.grpc import AccessDeniedError, GrpcSaver, ServerUnavailableError

from tests.support.api_keys import key_entry
from tests.support.server_process import ServerProcess

NOWHERE = "127.0.0.1:1"


def test_set_up_where_no_loop_runs(shared_server: ServerProcess) -> None:
    with GrpcSaver(shared_server.target) as saver:
        saver.setup()
        asyncio.run(saver.asetup())
    with GrpcSaver(NOWHERE, retry_budget=0) as saver:
        with pytest.raises(ServerUnavailableError):
            saver.setup()
        with pytest.raises(ServerUnavailableError):
            asyncio.run(saver.asetup())


async def test_set_up_in_a_loop(shared_server: ServerProcess) -> None:
    async with GrpcSaver(shared_server.target) as saver:
        await saver.setup()
        await saver.asetup()
    async with GrpcSaver(NOWHERE, retry_budget=0) as saver:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            saver.setup()  # code that blocks its loop: no warning
        with pytest.raises(ServerUnavailableError):
            await saver.setup()


def test_what_was_set_up_may_be_awaited_later(shared_server: ServerProcess) -> None:
    async def wait() -> None:
        await done

    with GrpcSaver(shared_server.target) as saver:
        done = saver.setup()
        asyncio.run(wait())


async def test_ping(shared_server: ServerProcess) -> None:
    async with GrpcSaver(shared_server.target) as saver:
        saver.ping()
        await saver.aping()
    async with GrpcSaver(NOWHERE, retry_budget=600) as saver:  # raised at once nevertheless
        with pytest.raises(ServerUnavailableError):
            saver.ping(timeout=2)
        with pytest.raises(ServerUnavailableError):
            await saver.aping(timeout=2)


def test_ping_asks_whether_the_token_may_read(database_url: str, tmp_path: Path) -> None:
    keys = tmp_path / "keys.toml"
    keys.write_text(key_entry("ckd_reader", "acme", "read"))
    with ServerProcess("--database-url", database_url, "--keys-file", str(keys), log_dir=tmp_path) as server:
        with GrpcSaver(server.target, token="ckd_reader") as saver:
            saver.ping()
        with GrpcSaver(server.target, token="ckd_nobody") as saver, pytest.raises(AccessDeniedError):
            saver.ping()
