"""Invalid options of a saver: a clear error that names the option, before anything is sent."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from langgraph.checkpoint.grpc import AccessDeniedError, GrpcSaver, GrpcStore, InvalidArgumentError

from checkpointd_server.cli import main
from tests.support.api_keys import key_entry
from tests.support.calls import config_of
from tests.support.cluster import PostgresCluster
from tests.support.server_process import ServerProcess

HERE = "127.0.0.1:50051"
KEY = "ckd_hunter2"


def test_from_conn_string_takes_the_options_of_the_class() -> None:
    with GrpcSaver.from_conn_string(HERE, timeout=5, token=KEY) as saver:
        assert (saver.options.target, saver.options.timeout, saver.options.token) == (HERE, 5, KEY)
    with GrpcStore.from_conn_string(HERE, searchable={"kind"}, retry_budget=2) as store:
        assert store._client.options.retry_budget == 2


def test_type_checkers_know_the_options_of_from_conn_string() -> None:
    # `make lint` fails if these ignores are no longer needed.
    with pytest.raises(TypeError):
        GrpcSaver.from_conn_string(HERE, timeouts=5)  # type: ignore[call-arg]
    with pytest.raises(InvalidArgumentError):
        GrpcSaver.from_conn_string(HERE, timeout="5")  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        GrpcStore.from_conn_string(HERE, concurrency="optimistic")  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"timeout": "5"}, "timeout: must be a number of seconds, not str"),
        ({"timeout": None}, "timeout: must be a number of seconds, not NoneType"),
        ({"timeout": True}, "timeout: must be a number of seconds, not bool"),
        ({"timeout": 0}, "timeout: must be more than 0 seconds"),
        ({"timeout": math.inf}, "timeout: must be more than 0 seconds and at most"),
        ({"keepalive": "5"}, "keepalive: must be a number of seconds, not str"),
        ({"keepalive": 1e12}, "keepalive: must be more than 0 seconds and at most"),
        ({"retry_budget": None}, "retry_budget: must be a number of seconds, not NoneType"),
        ({"retry_budget": math.nan}, "retry_budget: must be 0 seconds or more"),
        ({"cache_bytes": "1 MiB"}, "cache_bytes: must be a number of bytes, not str"),
        ({"tls": "ca.crt"}, "tls: must be True, False or TlsOptions, not str"),
        ({"tls": Path("ca.crt")}, r"tls: must be True, False or TlsOptions, not \w*Path"),
        ({"encryption": KEY}, "encryption: must be an Encryption, not str"),
        ({"token": 5}, "token: must be a text, or a callable that returns one, not int"),
        ({"token": KEY.encode()}, "token: must be a text, or a callable that returns one, not bytes"),
        ({"token": f"{KEY}\nx"}, "token: holds a character that can't be sent"),
        ({"token": f"{KEY}\x00"}, "token: holds a character that can't be sent"),
        ({"token": f"{KEY}é"}, "token: holds a character that can't be sent"),
        ({"concurrency": None}, "concurrency: None is neither"),
        ({"target": 5}, "target: must be a text like 127.0.0.1:50051, not int"),
        ({"target": ""}, "target: '' is not an address"),
        ({"target": "127.0.0.1"}, "target: '127.0.0.1' is not an address"),
        ({"target": "127.0.0.1:99999"}, "target: '127.0.0.1:99999' is not an address of a checkpointd; .* up to 65535"),
        ({"target": f"{HERE},host:99999"}, "target: 'host:99999' is not an address"),
        ({"target": "http://host:50051"}, "target: 'http://host:50051' is not an address"),
        ({"target": "localhost:port"}, "target: 'localhost:port' is not an address"),
        ({"target": f"http://me:{KEY}@host:50051"}, "target: what was given is not an address"),
        ({"target": f"dns:///me:{KEY}@host:50051"}, "target: what was given is not an address"),
        ({"target": f"postgresql://host/db?password={KEY}"}, "target: what was given is not an address"),
    ],
)
def test_an_option_that_can_t_be_used_is_named(options: dict[str, Any], problem: str) -> None:
    with pytest.raises(InvalidArgumentError, match=problem) as failed:
        GrpcSaver(**{"target": HERE, **options})
    assert failed.value.field == next(iter(options))
    assert KEY not in str(failed.value)


@pytest.mark.parametrize("wrong", [object(), [len], {"deeper": object()}])
def test_a_filter_that_can_t_be_written_down_is_named(wrong: Any) -> None:
    with GrpcSaver(HERE) as saver, pytest.raises(InvalidArgumentError, match="filter: holds a value that") as failed:
        list(saver.list(None, filter={"x": wrong}))
    assert failed.value.field == "filter"


@pytest.fixture(scope="module")
def asking(postgres_cluster: PostgresCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server that authenticates its callers."""
    database, folder = postgres_cluster.create_migrated_database(), tmp_path_factory.mktemp("asking")
    keys = folder / "keys.toml"
    keys.write_text(key_entry(KEY, "acme", "read"))
    options = ("--database-url", postgres_cluster.dsn(database), "--keys-file", str(keys))
    with ServerProcess(*options, log_dir=folder) as server:
        yield server.target
    postgres_cluster.drop_database(database)


async def test_white_space_around_a_token_is_not_sent(asking: str, monkeypatch: pytest.MonkeyPatch) -> None:
    written = f" {KEY}\r\n"  # as read from a file
    for token in (written, lambda: written):
        async with GrpcSaver(asking, token=token) as saver:
            assert saver.get_tuple(config_of("t")) is None
            assert await saver.aget_tuple(config_of("t")) is None
    monkeypatch.setenv("CHECKPOINTD_TOKEN", written)
    with GrpcSaver(asking) as saver:
        assert saver.get_tuple(config_of("t")) is None
    assert CliRunner().invoke(main, ["info", "--target", asking]).output.startswith("version ")


@pytest.mark.parametrize(
    ("token", "problem"),
    [
        (f"{KEY}\nx", "token: holds a character that can't be sent"),
        (KEY.encode(), "token: must be a text, as what the callable returns, not bytes"),
    ],
)
async def test_a_token_from_a_callable_is_looked_at_too(asking: str, token: Any, problem: str) -> None:
    async with GrpcSaver(asking, token=lambda: token) as saver:
        with pytest.raises(InvalidArgumentError, match=problem) as blocking:
            saver.get_tuple(config_of("t"))
        with pytest.raises(InvalidArgumentError, match=problem) as awaiting:
            await saver.aget_tuple(config_of("t"))
        for failed in (blocking.value, awaiting.value):
            assert failed.field == "token"
            assert KEY not in str(failed)


def test_no_token_is_none(asking: str) -> None:
    for token in ("", " \n", lambda: "", lambda: None):
        with GrpcSaver(asking, token=token) as saver, pytest.raises(AccessDeniedError):  # type: ignore[arg-type]
            saver.get_tuple(config_of("t"))


@pytest.mark.parametrize("token", [f"{KEY}\nx", f"{KEY}é", f"\x01{KEY}"])
def test_the_commands_refuse_a_token_that_can_t_be_sent(token: str) -> None:
    for command in (["health"], ["info"], ["show", "42"]):
        result = CliRunner().invoke(main, [*command, "--target", "127.0.0.1:1"], env={"CHECKPOINTD_TOKEN": token})
        assert result.exit_code == 2
        assert "--token (CHECKPOINTD_TOKEN): holds a character that can't be sent" in result.output
        assert KEY not in result.output
