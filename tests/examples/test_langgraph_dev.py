"""`langgraph dev` with its threads on a real server: what Studio does, by the API that Studio uses."""

from __future__ import annotations

import fcntl
import json
import shutil
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from langgraph.checkpoint.grpc import GrpcSaver, GrpcStore
from langgraph_sdk import get_sync_client
from langgraph_sdk.client import SyncLangGraphClient

from tests.support.calls import config_of
from tests.support.document import ROOT, Document
from tests.support.server_process import ServerProcess, clean_environment
from tests.support.until import until

EXAMPLE = ROOT / "examples" / "langgraph_dev"
LONGEST_SECONDS = 600


@pytest.fixture(scope="session")
def programs() -> Path:
    """The programs of an environment that has LangGraph's server, which needs other releases than .venv has."""
    environment = ROOT / ".build" / f"langgraph-dev-{sys.version_info.major}.{sys.version_info.minor}"
    stamp, wanted = environment / ".ready", "".join((ROOT / path).read_text() for path in ("pyproject.toml", __file__))
    environment.parent.mkdir(exist_ok=True)
    with environment.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not stamp.exists() or stamp.read_text() != wanted:
            shutil.rmtree(environment, ignore_errors=True)
            pip = [
                str(environment / "bin" / "python"),
                "-m",
                "pip",
                "--disable-pip-version-check",
                "--quiet",
                "install",
            ]
            packages = ["--group", "langgraph-dev", "-e", "./protos", "-e", "./client"]
            for command in ([sys.executable, "-m", "venv", str(environment)], [*pip, "pip>=25.1"], [*pip, *packages]):
                subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, check=True, timeout=LONGEST_SECONDS)
            stamp.write_text(wanted)
    return environment / "bin"


@contextmanager
def langgraph_dev(programs: Path, target: str, folder: Path) -> Iterator[SyncLangGraphClient]:
    """Runs `langgraph dev` in a folder, with threads on a server, and yields a client of it."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    url, log = f"http://127.0.0.1:{port}", folder / "log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            [programs / "langgraph", "dev", "--no-browser", "--no-reload", "--port", str(port)],
            cwd=folder,
            env={**clean_environment(), "CHECKPOINTD_TARGET": target, "LANGSMITH_TRACING": "false"},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )

    def is_up() -> bool:
        assert process.poll() is None, log.read_text()
        try:
            with urllib.request.urlopen(f"{url}/ok", timeout=10) as answer:
                return bool(json.load(answer)["ok"])
        except OSError:
            return False

    try:
        until(is_up, timeout=300, pause=0.2)
        with get_sync_client(url=url) as client:
            yield client
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@pytest.mark.long
@pytest.mark.timeout(2 * LONGEST_SECONDS)
def test_what_studio_does_is_on_the_server(programs: Path, server: ServerProcess, tmp_path: Path) -> None:
    folder = tmp_path / "example"
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns(".langgraph_api", "__pycache__"))
    with GrpcSaver(server.target) as saver, GrpcStore.from_saver(saver) as store:

        def stored(thread_id: str) -> list[str]:
            return [found.checkpoint["id"] for found in saver.list(config_of(thread_id))]

        with langgraph_dev(programs, server.target, folder) as client:
            # Some of its methods are typed as returning nothing, and return a thread.
            threads: Any = client.threads
            runs = client.runs
            thread = threads.create()["thread_id"]

            # An interrupt, and the answer.
            asked: Any = runs.wait(thread, "agent", input={"request": "one"})
            assert asked["__interrupt__"][0]["value"] == {"question": "Send it?", "draft": "draft: one"}
            assert threads.get_state(thread)["next"] == ["review"]
            done: Any = runs.wait(thread, "agent", command={"resume": "yes"})
            assert done["log"] == ["draft: one", "review: yes", "sent"]

            # The graph's entry in its store, by the API and directly.
            assert client.store.get_item(["requests"], key="one")["value"] == {"outcome": "sent"}
            client.store.put_item(["requests"], key="by the API", value={"outcome": "dropped"})
            found: Any = client.store.search_items(["requests"], filter={"outcome": "dropped"})
            assert [item["key"] for item in found["items"]] == ["by the API"]
            listed: Any = client.store.list_namespaces()
            assert listed["namespaces"] == [["requests"]]
            assert {item.key for item in store.search(("requests",))} == {"one", "by the API"}

            # The history.
            history = threads.get_history(thread)
            assert [state["next"] for state in history] == [[], ["send"], ["review"], ["draft"], ["__start__"]]
            before = stored(thread)
            assert [state["checkpoint"]["checkpoint_id"] for state in history] == before

            # A copy, which continues independently.
            copy = threads.copy(thread)["thread_id"]
            assert stored(copy) == before
            threads.update_state(copy, {"log": ["noted"]}, as_node="send")
            assert threads.get_state(copy)["values"]["log"] == [*done["log"], "noted"]
            assert stored(thread) == before

            # A run that is rolled back: by a cancellation, and by the next message.
            run = runs.create(thread, "agent", input={"request": "two", "seconds": 300})
            until(lambda: len(stored(thread)) > len(before), timeout=60)
            runs.cancel(thread, run["run_id"], action="rollback", wait=True)
            until(lambda: stored(thread), lambda now: now == before, timeout=60)
            runs.create(thread, "agent", input={"request": "three", "seconds": 300})
            until(lambda: len(stored(thread)) > len(before), timeout=60)
            runs.wait(thread, "agent", input={"request": "four", "seconds": 0}, multitask_strategy="rollback")
            rolled_back: Any = threads.get_state(thread)
            assert rolled_back["values"]["log"] == [*done["log"], "draft: four"]

            # Deletion.
            threads.delete(copy)
            assert stored(copy) == []

        # The development server's own data is gone, the thread isn't: it still asks, and takes the answer.
        shutil.rmtree(folder / ".langgraph_api")
        with langgraph_dev(programs, server.target, folder) as client:
            client.threads.create(thread_id=thread, graph_id="agent")
            assert client.threads.get_state(thread)["next"] == ["review"]
            answered: Any = client.runs.wait(thread, "agent", command={"resume": "no"})
            assert answered["log"][-2:] == ["review: no", "dropped"]
            client.threads.delete(thread)
        assert stored(thread) == []


def test_the_page_shows_the_example() -> None:
    page = Document("docs/langgraph-dev.md")
    assert [shown for _, shown in page.blocks("json")] == [(EXAMPLE / "langgraph.json").read_text()]
    ((_, shown),) = page.blocks("python")
    assert shown.strip() in (EXAMPLE / "checkpointer.py").read_text()
