"""The saver and the commands, end to end: over TLS, with tokens, and never with a token in plain text."""

from __future__ import annotations

import asyncio
import operator
import subprocess
import time
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Annotated, Any, TypedDict

import pytest
from langgraph.checkpoint.grpc import AccessDeniedError, GrpcSaver, InvalidArgumentError, TlsOptions
from langgraph.graph import START, StateGraph

from tests.support.api_keys import key_entry
from tests.support.authority import AUDIENCE, ISSUER, Authority, Issuer
from tests.support.commands import run
from tests.support.server_process import ServerProcess
from tests.support.tuned import tuned


class Protected:
    """A server with TLS, keys and tokens, and everything that its clients need."""

    def __init__(self, database_url: str, folder: Path) -> None:
        self.authority, self.issuer = Authority(), Issuer()
        cert, key = self.authority.write(folder)
        self.ca = folder / "ca.pem"
        self.ca.write_bytes(self.authority.pem)
        self.keys = folder / "keys.toml"
        entries = [key_entry(f"ckd_{tenant}", tenant, "read", "write") for tenant in ("acme", "other")]
        self.keys.write_text("\n".join([*entries, key_entry("ckd_reader", "acme", "read")]))
        issuer = folder / "issuer.json"
        issuer.write_bytes(self.issuer.jwks)
        self.server = ServerProcess(
            *("--database-url", database_url, "--tls-cert", str(cert), "--tls-key", str(key)),
            *("--keys-file", str(self.keys), "--jwt-keys", str(issuer)),
            *("--jwt-issuer", ISSUER, "--jwt-audience", AUDIENCE, "--jwt-leeway", "0"),
            log_dir=folder,
        )
        self.tls = TlsOptions(root_certificates=self.authority.pem)

    def command(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return run(*arguments, "--target", self.server.target, env=environment)


@pytest.fixture
def protected(database_url: str, tmp_path: Path) -> Iterator[Protected]:
    made = Protected(database_url, tmp_path)
    with made.server:
        yield made


class State(TypedDict):
    items: Annotated[list[str], operator.add]


def graph(saver: GrpcSaver) -> Any:
    builder = StateGraph(State)
    builder.add_node("work", lambda state: {"items": ["done"]})
    builder.set_entry_point("work")
    return builder.compile(checkpointer=saver)


THREAD: Any = {"configurable": {"thread_id": "thread"}}


class TestASaver:
    def test_runs_a_graph_as_its_tenant(self, protected: Protected) -> None:
        for token in ("ckd_acme", "ckd_other"):
            with GrpcSaver(protected.server.target, token=token, tls=protected.tls) as saver:
                assert graph(saver).invoke({"items": ["hello"]}, THREAD)["items"] == ["hello", "done"]
        with GrpcSaver(protected.server.target, token=lambda: protected.issuer.token(), tls=protected.tls) as saver:
            assert graph(saver).get_state(THREAD).values["items"] == ["hello", "done"]

    async def test_also_when_awaited(self, protected: Protected) -> None:
        async with GrpcSaver(protected.server.target, token="ckd_acme", tls=protected.tls) as saver:
            found = await graph(saver).ainvoke({"items": ["hello"]}, THREAD)
            assert found["items"] == ["hello", "done"]

    @pytest.mark.parametrize("token", [None, "ckd_nobody", "ckd_reader"])
    def test_is_told_that_it_may_not(self, token: str | None, protected: Protected) -> None:
        with (
            GrpcSaver(protected.server.target, token=token, tls=protected.tls) as saver,
            pytest.raises(AccessDeniedError),
        ):
            graph(saver).invoke({"items": ["hello"]}, THREAD)

    @pytest.mark.parametrize("seconds", [0.0, 0.3])
    @pytest.mark.parametrize("awaited", [True, False])
    def test_is_told_so_without_waiting_for_puts_that_will_not_come(
        self, awaited: bool, seconds: float, protected: Protected
    ) -> None:
        """LangGraph makes no put after a failed one, but still stores task writes of later steps."""

        def work(state: State) -> dict[str, list[str]]:
            time.sleep(seconds)
            return {"items": ["done"]}

        builder = StateGraph(State)
        for name, before in (("a", START), ("b", "a"), ("c", "b")):
            builder.add_node(name, work)
            builder.add_edge(before, name)
        patient = tuned(put_expected_within=60.0)
        with patient(protected.server.target, token="ckd_reader", tls=protected.tls) as saver:
            compiled = builder.compile(checkpointer=saver)
            run = (lambda *given: asyncio.run(compiled.ainvoke(*given))) if awaited else compiled.invoke
            begun = time.monotonic()
            with pytest.raises(AccessDeniedError):
                run({"items": []}, THREAD)
        assert time.monotonic() - begun < 30

    async def test_asks_for_a_fresh_token_before_each_call(self, protected: Protected) -> None:
        asked: list[str] = []

        def token() -> str:
            # Short-lived: a client that kept one would be refused before the end.
            asked.append(protected.issuer.token(sub=f"{len(asked)}", exp=int(time.time()) + 6))
            return asked[-1]

        async with GrpcSaver(protected.server.target, token=token, tls=protected.tls) as saver:
            compiled = graph(saver)
            for _ in range(3):
                await compiled.ainvoke({"items": ["hello"]}, THREAD)
                time.sleep(2.5)
            compiled.get_state(THREAD)
        assert len(asked) > 6
        assert len(set(asked)) == len(asked)

    async def test_a_token_that_depends_on_who_calls_is_never_mixed_up(self, protected: Protected) -> None:
        who: ContextVar[str] = ContextVar("who")

        async def work(saver: GrpcSaver, tenant: str, number: int) -> None:
            who.set(tenant)
            thread: Any = {"configurable": {"thread_id": f"{tenant} {number}"}}
            await graph(saver).ainvoke({"items": [tenant]}, thread)

        async def threads(saver: GrpcSaver, tenant: str) -> set[str]:
            who.set(tenant)
            return {found.config["configurable"]["thread_id"] async for found in saver.alist(None)}

        token = lambda: f"ckd_{who.get()}"  # noqa: E731
        async with GrpcSaver(protected.server.target, token=token, tls=protected.tls) as saver:
            tenants = ("acme", "other")
            await asyncio.gather(*[work(saver, tenant, number) for number in range(20) for tenant in tenants])
            for tenant in tenants:
                found = await asyncio.create_task(threads(saver, tenant))
                assert found == {f"{tenant} {number}" for number in range(20)}

    @pytest.mark.parametrize("token", ["ckd_acme", lambda: "ckd_acme"])
    @pytest.mark.parametrize("target", ["agents.internal:50051", "10.0.0.1:50051", "dns:///agents:50051"])
    def test_sends_no_token_in_the_clear_off_the_machine(self, target: str, token: Any) -> None:
        with pytest.raises(InvalidArgumentError, match="plain text"):
            GrpcSaver(target, token=token)


class TestCommands:
    def test_speak_tls_and_show_a_token(self, protected: Protected) -> None:
        with GrpcSaver(protected.server.target, token="ckd_acme", tls=protected.tls) as saver:
            graph(saver).invoke({"items": ["hello"]}, THREAD)
        told = {"CHECKPOINTD_TLS_CA": str(protected.ca), "CHECKPOINTD_TOKEN": "ckd_acme"}
        assert "hello" in protected.command("show", "thread", **told).stdout
        assert "version" in protected.command("info", **told).stdout
        assert (
            "no checkpoint" in protected.command("show", "thread", **{**told, "CHECKPOINTD_TOKEN": "ckd_other"}).stderr
        )
        refused = protected.command("info", "--tls-ca", str(protected.ca))
        assert refused.returncode == 1
        assert "--token" in refused.stderr
        assert protected.command("health", "--tls-ca", str(protected.ca)).stdout == "SERVING\n"

    def test_send_no_token_in_the_clear_off_the_machine(self) -> None:
        ran = run("info", "--target", "agents.internal:50051", env={"CHECKPOINTD_TOKEN": "ckd_secret"})
        assert ran.returncode != 0
        assert "plain text" in ran.stderr
        assert "ckd_secret" not in ran.stderr
