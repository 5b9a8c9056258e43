"""Settings: options and environment variables are equivalent, and errors name the invalid one."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from enum import Enum
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

import click
import pytest
from click.testing import CliRunner, Result

from checkpointd_server.cli import main
from checkpointd_server.config import ServeConfig, default_data_dir
from checkpointd_server.process.config_json import dump_config, load_config
from tests.support.server_process import clean_environment

# A value other than the default for every option: as text, and as the server sees it.
SAMPLES: dict[str, tuple[str, object]] = {
    "listen": ("127.0.0.1:0", ("127.0.0.1:0",)),
    "database_url": ("postgresql://u:p@h/d", "postgresql://u:p@h/d"),
    "data_dir": ("/some/where", Path("/some/where")),
    "schema": ("other", "other"),
    "database_wait": ("1.5", 1.5),
    "vector_index": ("3:l2", ("3:l2",)),
    "workers": ("2", 2),
    "pool_max_size": ("3", 3),
    "max_concurrent_calls": ("7", 7),
    "max_bytes_in_flight": ("1048576", 1048576),
    "max_queue": ("0", 0),
    "max_queue_seconds": ("2.5", 2.5),
    "max_connections": ("7", 7),
    "quota_bytes": ("7", 7),
    "quota_threads": ("7", 7),
    "quota_calls": ("7", 7),
    "quota_refresh_seconds": ("2.5", 2.5),
    "retention_interval": ("2.5", 2.5),
    "retention_batch": ("7", 7),
    "max_wasted_calls": ("7", 7),
    "max_timeout": ("2.5", 2.5),
    "statement_cache_size": ("0", 0),
    "migrate": ("false", False),
    "drain_seconds": ("0", 0.0),
    "kill_after_seconds": ("3", 3.0),
    "default_timeout": ("2.5", 2.5),
    "max_message_bytes": ("1048576", 1048576),
    "max_page_bytes": ("4096", 4096),
    "max_value_bytes": ("2097152", 2097152),
    "reflection": ("false", False),
    "metrics_listen": ("127.0.0.1:0", "127.0.0.1:0"),
    "traces": ("true", True),
    "slow_call_seconds": ("0", 0.0),
    "warn_checkpoint_bytes": ("0", 0),
    "to_postgres": ("postgresql://u:p@h/d", "postgresql://u:p@h/d"),
    "from_postgres": ("postgresql://u:p@h/d", "postgresql://u:p@h/d"),
    "log_level": ("debug", "debug"),
    "log_format": ("json", "json"),
    "target": ("host:1", "host:1"),
    "health_listen": ("127.0.0.1:0", ("127.0.0.1:0",)),
    "tls_cert": ("/a/file", Path("/a/file")),
    "tls_key": ("/a/file", Path("/a/file")),
    "tls_client_ca": ("/a/file", Path("/a/file")),
    "keys_file": ("/a/file", Path("/a/file")),
    "jwt_keys": ("/a/file", Path("/a/file")),
    "jwt_jwks_url": ("https://issuer/jwks", "https://issuer/jwks"),
    "jwt_issuer": ("https://issuer", "https://issuer"),
    "jwt_audience": ("us", ("us",)),
    "jwt_tenant_claim": ("org", "org"),
    "jwt_scope_claim": ("scp", "scp"),
    "jwt_leeway": ("0", 0.0),
    "open_health": ("false", False),
    "open_reflection": ("true", True),
    "insecure_without_tls": ("true", True),
    "insecure_without_tokens": ("true", True),
    "token": ("secret", "secret"),
    "insecure_token": ("true", True),
    "tls": ("true", True),
    "tls_ca": ("/a/file", Path("/a/file")),
    "tls_client_cert": ("/a/file", Path("/a/file")),
    "tls_client_key": ("/a/file", Path("/a/file")),
    "context": ("production", "production"),
}


def settings() -> list[tuple[str, click.Option]]:
    """Returns every option that can be set by an environment variable, with its command."""
    return [
        (name, option)
        for name, command in main.commands.items()
        for option in command.params
        if isinstance(option, click.Option) and option.envvar
    ]


def parse(command: str, args: list[str]) -> dict[str, object]:
    arguments = ["42"] if command == "show" else []
    return main.commands[command].make_context(command, arguments + args).params


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in set(os.environ) - set(clean_environment()):
        monkeypatch.delenv(name)


@pytest.mark.parametrize(("command", "option"), settings(), ids=lambda value: getattr(value, "name", value))
def test_the_environment_says_the_same_as_the_option(
    command: str, option: click.Option, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert option.name is not None
    text, value = SAMPLES[option.name]
    flags = [option.opts[0], text]
    if option.is_flag:
        flags = [option.opts[0] if value else option.secondary_opts[0]]
    assert parse(command, flags)[option.name] == value
    assert parse(command, [])[option.name] != value
    assert option.envvar == f"CHECKPOINTD_{option.name.upper()}"
    monkeypatch.setenv(str(option.envvar), text)
    assert parse(command, [])[option.name] == value


def test_every_option_of_serve_has_an_environment_variable() -> None:
    with_variable = {option.name for command, option in settings() if command == "serve"}
    assert with_variable == {parameter.name for parameter in main.commands["serve"].params}


def sample_of(kind: Any, value: Any) -> Any:
    """Returns a value of a type other than this one."""
    if isinstance(kind, UnionType):
        (kind,) = (each for each in get_args(kind) if each is not NoneType)
    if isinstance(kind, type) and is_dataclass(kind):
        hints = get_type_hints(kind)
        given = {field.name: getattr(value, field.name, None) for field in fields(kind)}
        return kind(**{name: sample_of(hints[name], known) for name, known in given.items()})
    if get_origin(kind) is tuple:
        return ("a", "b c")
    if issubclass(kind, Enum):
        return next(each for each in kind if each is not value)
    if kind is bool:
        return not value
    return {int: 7, float: 1.25, str: 'naïve "text"', Path: Path("/some where")}[kind]


def leaves(value: Any) -> Iterator[tuple[str, Any]]:
    for field in fields(value):
        inner = getattr(value, field.name)
        if is_dataclass(inner):
            yield from ((f"{field.name}.{name}", leaf) for name, leaf in leaves(inner))
        else:
            yield field.name, inner


@pytest.mark.parametrize("config", [ServeConfig(), sample_of(ServeConfig, ServeConfig())], ids=["defaults", "others"])
def test_a_worker_is_told_every_option_as_its_parent_has_it(config: ServeConfig) -> None:
    assert load_config(json.loads(json.dumps(dump_config(config)))) == config


def test_the_samples_differ_from_all_defaults() -> None:
    defaults, samples = dict(leaves(ServeConfig())), dict(leaves(sample_of(ServeConfig, ServeConfig())))
    assert not [name for name, value in defaults.items() if name in samples and samples[name] == value]
    assert {"access.tls.cert", "access.jwt.audiences", "limits.max_page_bytes", "database.url"} <= samples.keys()


def test_what_is_no_configuration_is_not_taken_for_one() -> None:
    dumped = dump_config(ServeConfig())
    for broken in ({}, {**dumped, "workers": "1"}, {**dumped, "log_level": "loud"}):
        with pytest.raises((KeyError, TypeError, ValueError)):
            load_config(broken)


def test_several_addresses_are_parted_by_spaces_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHECKPOINTD_LISTEN", "127.0.0.1:1 unix:/tmp/a")
    assert parse("serve", [])["listen"] == ("127.0.0.1:1", "unix:/tmp/a")


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--listen", "nonsense"], "'--listen'"),
        (["--listen", "127.0.0.1:65536"], "'--listen'"),
        (["--listen", ""], "'--listen'"),
        (["--database-url", "mysql://user:hunter2@db"], "'--database-url'"),
        (["--schema", "x" * 64], "'--schema'"),
        (["--schema", ""], "'--schema'"),
        (["--schema", "pg_mine"], "'--schema'"),
        (["--workers", "0"], "'--workers'"),
        (["--pool-max-size", "0"], "'--pool-max-size'"),
        (["--statement-cache-size", "-1"], "'--statement-cache-size'"),
        (["--drain-seconds", "-1"], "'--drain-seconds'"),
        (["--drain-seconds", "nan"], "'--drain-seconds'"),
        (["--default-timeout", "0"], "'--default-timeout'"),
        (["--max-message-bytes", "1"], "'--max-message-bytes'"),
        (["--max-page-bytes", "many"], "'--max-page-bytes'"),
        (["--log-level", "loud"], "'--log-level'"),
        (["--log-format", "xml"], "'--log-format'"),
        (["--database-url", "postgresql://u:hunter2@h/d", "--data-dir", "x"], "--data-dir"),
        (["--no-such-option"], "--no-such-option"),
    ],
)
def test_a_bad_value_is_refused_and_its_option_named(arguments: list[str], problem: str) -> None:
    result = CliRunner().invoke(main, ["serve", *arguments])
    assert result.exit_code == 2
    assert problem in result.output
    assert "hunter2" not in result.output


def test_a_bad_value_of_the_environment_is_refused_and_named() -> None:
    result = CliRunner().invoke(main, ["serve"], env={"CHECKPOINTD_POOL_MAX_SIZE": "none"})
    assert result.exit_code == 2
    assert "CHECKPOINTD_POOL_MAX_SIZE" in result.output


@pytest.mark.parametrize("command", ["serve", "migrate"])
@pytest.mark.parametrize(
    ("variable", "meant"),
    [
        ("CHECKPOINTD_POOL_SIZE", "CHECKPOINTD_POOL_MAX_SIZE"),
        ("CHECKPOINTD_TLS_CRT", "CHECKPOINTD_TLS_CERT"),
        ("CHECKPOINTD_KEYFILE", "CHECKPOINTD_KEYS_FILE"),
        ("CHECKPOINTD_PORT", None),
    ],
)
def test_a_variable_that_nothing_reads_is_named_with_the_one_that_was_meant(
    command: str, variable: str, meant: str | None
) -> None:
    result = start_in_vain(command, {variable: "hunter2"})
    (line,) = [line for line in result.output.splitlines() if "has no effect" in line]
    assert f"variable={variable}" in line
    assert ("did_you_mean" in line, f"did_you_mean={meant}" in line) == (meant is not None,) * 2
    assert "hunter2" not in result.output


def test_variables_that_something_reads_are_not_warned_about() -> None:
    known = {str(option.envvar): "" for _, option in settings()}
    assert {"CHECKPOINTD_TARGET", "CHECKPOINTD_TOKEN"} < known.keys()  # variables of the savers
    of_tests = {"CHECKPOINTD_TEST_POSTGRES": "x", "CHECKPOINTD_FUZZ_EXAMPLES": "5"}
    kubernetes = {
        "CHECKPOINTD_SERVICE_HOST": "10.0.0.1",
        "CHECKPOINTD_SERVICE_PORT_GRPC": "50051",
        "CHECKPOINTD_PORT": "tcp://10.0.0.1:50051",
        "CHECKPOINTD_PORT_50051_TCP_ADDR": "10.0.0.1",
    }
    for env in (known, of_tests, kubernetes):
        assert "has no effect" not in start_in_vain("serve", env).output


def start_in_vain(command: str, env: dict[str, str]) -> Result:
    """Runs a command that fails at connecting to its database, since there is none."""
    env = {**env, "CHECKPOINTD_DATABASE_URL": "postgresql://127.0.0.1:1/none", "CHECKPOINTD_DATABASE_WAIT": "0"}
    listen = ["--listen", "127.0.0.1:0"] if command == "serve" else []
    result = CliRunner().invoke(main, [command, *listen], env=env)
    assert "the database can't be reached" in result.output
    return result


def all_commands(group: click.Group = main, prefix: str = "") -> Iterator[str]:
    """Yields every command and group, as it is typed."""
    for name, command in group.commands.items():
        yield f"{prefix}{name}"
        if isinstance(command, click.Group):
            yield from all_commands(command, f"{prefix}{name} ")


@pytest.mark.parametrize("command", ["", *all_commands()])
def test_help_shows_an_example(command: str) -> None:
    result = CliRunner().invoke(main, [*command.split(), "--help"], prog_name="checkpointd")
    assert result.exit_code == 0
    usage, _, rest = result.output.partition("\n")
    assert usage.startswith(f"Usage: checkpointd {command}".rstrip())
    assert f"checkpointd {command or 'serve'}" in rest


def test_version_is_told() -> None:
    assert CliRunner().invoke(main, ["--version"]).output == "checkpointd 0.1.0\n"


def test_the_default_data_folder_is_the_user_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    assert default_data_dir() == Path("/data/checkpointd")
    monkeypatch.setenv("XDG_DATA_HOME", "relative")
    monkeypatch.setenv("HOME", "/users/me")
    assert default_data_dir() == Path("/users/me/.local/share/checkpointd")
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert default_data_dir() == Path("/var/lib/checkpointd")
