"""Settings of a server in deploy/: the environment variables must exist, with valid values."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from checkpointd_server.cli import main
from checkpointd_server.cli.server_options import read_database
from checkpointd_server.cli.unknown_env import variables_of
from tests.support.document import ROOT

DEPLOY = ROOT / "deploy"


def options_of(environment: Mapping[str, str], monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """Returns the options that `checkpointd serve` reads from these variables. Fails on an unknown one."""
    ours = {name: value for name, value in environment.items() if name.startswith("CHECKPOINTD_")}
    serve = main.commands["serve"]
    assert set(ours) <= variables_of([serve])
    for name, value in ours.items():
        monkeypatch.setenv(name, value)
    options = serve.make_context("serve", []).params
    database = ("database_url", "data_dir", "schema", "database_wait", "vector_index")
    read_database(*(options[name] for name in database))
    for name in ours:
        monkeypatch.delenv(name)
    return dict(options)
