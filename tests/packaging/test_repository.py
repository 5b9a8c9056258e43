"""Facts about the whole repository: all packages have one version, and the workflows run the commands of .ci/run."""

from __future__ import annotations

import json
import re
import tomllib
from typing import Any

import pytest
import yaml

from checkpointd_server import __version__
from scripts.house_rules import ROOT

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def test_all_packages_have_one_version_and_ask_for_it() -> None:
    versions = {"server/checkpointd_server": __version__}
    versions["clients/js"] = json.loads((ROOT / "clients/js/package.json").read_text())["version"]
    for folder in ("protos", "client", "server"):
        project = tomllib.loads((ROOT / folder / "pyproject.toml").read_text())["project"]
        versions[folder] = project["version"]
        for need in project["dependencies"]:
            if need.startswith("checkpointd"):
                assert need == f"checkpointd-protos=={__version__}"
    assert set(versions.values()) == {__version__}, versions


def steps(workflow: Any) -> list[str]:
    """Returns the commands that a workflow runs, with matrix values substituted."""
    commands: list[str] = []
    for job in workflow["jobs"].values():
        for step in job["steps"]:
            if command := step.get("run"):
                many = job.get("strategy", {}).get("matrix", {}).get("command", [])
                commands += many if command == "${{ matrix.command }}" else [command]
    return commands


def test_the_workflow_of_each_push_runs_what_ci_runs() -> None:
    run = (ROOT / ".ci" / "run").read_text()
    expected = re.findall(r"^(make .*) \|\| status=\$\?$", run, re.MULTILINE)
    assert len(expected) > 2
    assert sorted(steps(yaml.safe_load((ROOT / ".github/workflows/checks.yml").read_text()))) == sorted(expected)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_run_verbs_of_the_makefile_and_may_only_read(path: Any) -> None:
    workflow = yaml.safe_load(path.read_text())
    assert workflow["permissions"] == {"contents": "read"}
    makefile = (ROOT / "Makefile").read_text()
    for command in steps(workflow):
        program, verb, *_ = command.split()
        assert program == "make"
        assert re.search(rf"^{verb}:", makefile, re.MULTILINE), command


def test_issue_forms_ask_for_something() -> None:
    forms = [path for path in (ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml") if path.name != "config.yml"]
    assert len(forms) == 2
    for path in forms:
        form = yaml.safe_load(path.read_text())
        assert {"name", "description", "body"} <= set(form)
        assert any(part.get("validations", {}).get("required") for part in form["body"])
