"""Named servers: `checkpointd context`, and how commands use them."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from checkpointd_server.cli import main
from tests.support.server_process import ServerProcess

NOWHERE = "127.0.0.1:1"


@pytest.fixture(autouse=True)
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file in which contexts are kept. Nothing else names a server."""
    for name in ("CONTEXT", "TARGET", "LISTEN", "HEALTH_LISTEN", "TOKEN"):
        monkeypatch.delenv(f"CHECKPOINTD_{name}", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path / "config" / "checkpointd" / "contexts.json"


def run(*arguments: str, env: dict[str, str] | None = None, answer: str | None = None) -> Result:
    return CliRunner().invoke(main, arguments, env=env, input=answer)


def add(name: str, target: str, *options: str) -> None:
    result = run("context", "add", name, "--target", target, *options)
    assert result.exit_code == 0, result.output


def shown(*arguments: str) -> Any:
    result = run("context", *arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


class TestWhichServer:
    @pytest.fixture(autouse=True)
    def _contexts(self, shared_server: ServerProcess) -> None:
        add("away", NOWHERE)
        add("here", shared_server.target)

    def test_the_first_is_used_until_another_is(self) -> None:
        assert f"no answer from checkpointd at {NOWHERE}" in run("health").output
        assert run("context", "use", "here").output == "context here is in use\n"
        assert run("health").output == "SERVING\n"
        assert run("context", "use", "--none").exit_code == 0
        assert shown("list")["current"] is None

    @pytest.mark.parametrize("command", [["health"], ["info"]], ids=lambda command: command[0])
    def test_an_option_or_a_variable_names_one(self, command: list[str]) -> None:
        assert run(*command, "--context", "here").exit_code == 0
        assert run(*command, env={"CHECKPOINTD_CONTEXT": "here"}).exit_code == 0
        assert run(*command, env={"CHECKPOINTD_CONTEXT": "here", "CHECKPOINTD_TARGET": NOWHERE}).exit_code == 0

    def test_what_is_named_nearer_counts_before_the_one_in_use(self, shared_server: ServerProcess) -> None:
        here = shared_server.target
        assert run("health", "--target", here).output == "SERVING\n"
        assert run("health", "--target", here, env={"CHECKPOINTD_CONTEXT": "away"}).output == "SERVING\n"
        assert run("health", env={"CHECKPOINTD_TARGET": here}).output == "SERVING\n"
        assert run("health", env={"CHECKPOINTD_LISTEN": here}).output == "SERVING\n"
        assert run("health", "--context", "here", env={"CHECKPOINTD_TARGET": NOWHERE}).output == "SERVING\n"

    def test_two_at_once_are_refused(self, shared_server: ServerProcess) -> None:
        result = run("health", "--context", "here", "--target", shared_server.target)
        assert result.exit_code == 2
        assert "give either --context or --target" in result.output

    def test_one_that_is_not_there_is_named_with_those_that_are(self) -> None:
        for result in (run("health", "--context", "her"), run("context", "show", "her"), run("context", "use", "her")):
            assert result.exit_code == 2
            assert "there is no context 'her' (known: away, here)" in result.output


class TestTokens:
    """A token is sent only to the server that it was given for, and is never shown."""

    ELSEWHERE = "192.0.2.1:50051"

    def test_a_context_s_token_is_sent_and_the_environment_s_is_not(self, tmp_path: Path) -> None:
        # Over plain text to another machine, a token is refused before anything is sent, which shows that there is one.
        file = tmp_path / "token"
        file.write_text("secret\n")
        add("with", self.ELSEWHERE, "--token-file", str(file))
        add("without", NOWHERE)
        assert "the token would be sent in plain text" in run("health", "--context", "with").output
        result = run("health", "--context", "without", "--timeout", "0.2", env={"CHECKPOINTD_TOKEN": "line\nbreak"})
        assert "can't be sent" not in result.output
        result = run("health", "--context", "without", "--token", "line\nbreak")
        assert "--token (CHECKPOINTD_TOKEN): holds a character that can't be sent" in result.output

    @pytest.mark.parametrize("given", [["--token", "secret"], ["--token", "-"]], ids=["option", "standard input"])
    def test_it_is_kept_for_its_owner_alone_and_never_shown(self, given: list[str], config: Path) -> None:
        result = run("context", "add", "one", "--target", NOWHERE, *given, answer="secret\n")
        assert result.exit_code == 0
        assert json.loads(config.read_text())["contexts"]["one"]["token"] == "secret"
        assert stat.S_IMODE(config.stat().st_mode) == 0o600
        assert stat.S_IMODE(config.parent.stat().st_mode) == 0o700
        assert [path.name for path in config.parent.iterdir()] == [config.name]
        for command in (["list"], ["show"], ["list", "--json"], ["show", "--json"]):
            assert "secret" not in run("context", *command).output
        assert shown("show") == {"name": "one", "target": NOWHERE, "token": "..."}

    def test_a_token_file_that_is_gone_is_named(self, tmp_path: Path) -> None:
        file = tmp_path / "token"
        file.write_text("secret")
        add("one", NOWHERE, "--token-file", str(file))
        file.unlink()
        result = run("health")
        assert result.exit_code == 1
        assert f"context one: {file} can't be read: No such file or directory" in result.output


class TestKeeping:
    def test_a_name_is_not_taken_twice_unless_it_replaces(self) -> None:
        add("one", NOWHERE)
        result = run("context", "add", "one", "--target", "127.0.0.1:2")
        assert result.exit_code == 2
        assert "context 'one' already exists" in result.output
        add("one", "127.0.0.1:2", "--replace")
        assert shown("show", "one") == {"name": "one", "target": "127.0.0.1:2"}

    def test_removing_asks(self) -> None:
        add("one", NOWHERE)
        result = run("context", "remove", "one", answer="n\n")
        assert result.exit_code == 1
        assert "Forget context one, 127.0.0.1:1? [y/N]" in result.output
        assert list(shown("list")["contexts"]) == ["one"]
        result = run("context", "remove", "one")
        assert result.exit_code == 2
        assert "give --yes" in result.output
        assert run("context", "remove", "one", "--yes").exit_code == 0
        assert shown("list") == {"current": None, "contexts": {}}

    def test_the_list_is_a_table(self) -> None:
        add("one", NOWHERE, "--tls", "--token", "x")
        add("two", "unix:/run/socket")
        lines = [line.split() for line in run("context", "list").output.splitlines()]
        assert lines == [
            ["NAME", "TARGET", "TLS", "TOKEN"],
            ["*", "one", NOWHERE, "yes", "yes"],
            ["two", "unix:/run/socket", "no", "no"],
        ]

    @pytest.mark.parametrize(
        ("options", "problem"),
        [
            (["a b", "--target", NOWHERE], "is not a context's name"),
            (["one", "--target", "localhost"], "is not an address"),
            (["one", "--target", NOWHERE, "--token", "x", "--token-file", __file__], "either --token or --token-file"),
            (["one", "--target", NOWHERE, "--tls-client-cert", __file__], "--tls-client-cert and --tls-client-key"),
            (["one"], "Missing option '--target'"),
        ],
    )
    def test_what_can_t_be_used_is_refused_and_changes_nothing(
        self, options: list[str], problem: str, config: Path
    ) -> None:
        result = run("context", "add", *options)
        assert result.exit_code == 2
        assert problem in result.output
        assert not config.exists()

    @pytest.mark.parametrize(
        "content", ["", "[]", "{}", '{"contexts": {"a": {}}}', '{"contexts": {"a": {"target": 1}}}', '{"current": 1}']
    )
    def test_a_file_that_holds_something_else_is_said(self, content: str, config: Path) -> None:
        config.parent.mkdir(parents=True)
        config.write_text(content)
        result = run("health")
        assert result.exit_code == 1
        assert f"{config} is not a valid file of contexts" in result.output
