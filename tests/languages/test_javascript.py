"""The JavaScript client: built, its types checked, tested against a real server, packed, and used from the package."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.support.api_keys import key_entry
from tests.support.authority import Authority
from tests.support.javascript import LONGEST_SECONDS, build, npm, run
from tests.support.server_process import ServerProcess

pytestmark = [pytest.mark.long, pytest.mark.timeout(2 * LONGEST_SECONDS)]

KEY = "ckd_known"
CONFORMANCE = 718 + 8
"""The number of cases in LangGraph's suite, and in its suite of delta channels."""


@pytest.fixture(scope="module")
def client() -> Path:
    return build()


def test_passes_langgraphs_suite_and_its_own(client: Path, database_url: str, tmp_path: Path) -> None:
    """One server in plain text, and one with TLS and tokens."""
    keys, report = tmp_path / "keys.toml", tmp_path / "report.json"
    keys.write_text(key_entry(KEY, "acme", "read", "write", "delete"))
    authority = Authority()
    cert, key = authority.write(tmp_path)
    (tmp_path / "ca.pem").write_bytes(authority.pem)
    (tmp_path / "plain").mkdir()
    guarded = ("--keys-file", str(keys), "--tls-cert", str(cert), "--tls-key", str(key))
    with (
        ServerProcess("--database-url", database_url, log_dir=tmp_path / "plain") as server,
        ServerProcess("--database-url", database_url, *guarded, log_dir=tmp_path) as behind_tls,
    ):
        environment = {
            "CHECKPOINTD_TEST_TARGET": server.target,
            "CHECKPOINTD_TEST_TLS_TARGET": behind_tls.target,
            "CHECKPOINTD_TEST_TLS_CA": str(tmp_path / "ca.pem"),
            "CHECKPOINTD_TEST_TLS_TOKEN": KEY,
        }
        npm("test", "--", "--reporter=default", "--reporter=json", f"--outputFile={report}", env=environment)
    result = json.loads(report.read_text())
    assert result["numFailedTests"] == result["numPendingTests"] == result["numTodoTests"] == 0
    (suite,) = (each for each in result["testResults"] if each["name"].endswith("conformance.test.ts"))
    assert len(suite["assertionResults"]) == CONFORMANCE
    assert result["numPassedTests"] > CONFORMANCE


def test_types_are_right(client: Path) -> None:
    npm("run", "check")


def test_is_packed_with_all_that_it_needs_and_no_more(
    client: Path, shared_server: ServerProcess, tmp_path: Path
) -> None:
    (packed,) = json.loads(npm("pack", "--json", "--ignore-scripts", f"--pack-destination={tmp_path}"))
    files = {file["path"] for file in packed["files"]}
    assert {"package.json", "README.md", "LICENSE", "dist/index.js", "dist/index.d.ts", "dist/protocol.js"} <= files
    assert not [file for file in files if not re.match(r"dist/|package\.json$|README\.md$|LICENSE$", file)]

    project = tmp_path / "project"
    project.mkdir()
    (project / "package.json").write_text('{"type": "module"}')
    peers = ("@langchain/core", "@langchain/langgraph-checkpoint")
    npm("install", "--no-audit", "--no-fund", str(tmp_path / packed["filename"]), *peers, cwd=project)
    (project / "main.js").write_text(
        """
        import { GrpcSaver } from "@checkpointd/langgraph-checkpoint";
        import { Capability } from "@checkpointd/langgraph-checkpoint/protocol";
        const saver = new GrpcSaver({ target: process.argv[2] });
        await saver.setup();
        console.log(await saver.getTuple({ configurable: { thread_id: "nobody" } }), Capability.VERSIONS);
        saver.close();
        """
    )
    assert run("node", "main.js", shared_server.target, cwd=project).split() == ["undefined", "1"]


def test_no_address_is_in_the_lock_file(client: Path) -> None:
    packages = json.loads((client / "package-lock.json").read_text())["packages"]
    assert packages["node_modules/@grpc/grpc-js"]["integrity"]
    assert not [name for name, package in packages.items() if "resolved" in package]
