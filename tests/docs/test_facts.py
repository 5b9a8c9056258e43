"""The documents' options, limits and errors match the code, and links work."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import re
from typing import Any

import pytest
from langgraph.checkpoint.grpc import GrpcSaver, errors

from checkpointd.v1 import errors_pb2, info_service_pb2
from checkpointd_server.cli.serve import serve
from checkpointd_server.domain.limits import Limits
from scripts import document_metrics
from scripts.document_options import document
from tests.support.document import ROOT, Document, documents


@pytest.mark.parametrize("path", documents())
def test_links_lead_somewhere(path: str) -> None:
    here = Document(path)
    for link in re.findall(r"\]\(([^)\s]+)\)", here.prose):
        if link.startswith("https://"):
            continue
        file, _, anchor = link.partition("#")
        target = (ROOT / path).parent / file if file else ROOT / path
        assert target.exists(), link
        if anchor:
            assert anchor in Document(str(target.resolve().relative_to(ROOT))).anchors, link


def test_deploying_has_every_option_of_the_server() -> None:
    assert Document("docs/deploying.md").text == document(), "run: python -m scripts.document_options"


def test_observability_has_every_metric() -> None:
    assert Document("docs/observability.md").text == document_metrics.document(), (
        "run: python -m scripts.document_metrics"
    )


def test_clients_has_every_option_of_the_saver() -> None:
    parameters = inspect.signature(GrpcSaver).parameters
    rows = Document("docs/clients.md").table("option")
    assert list(rows) == list(parameters)
    for name, parameter in parameters.items():
        if isinstance(parameter.default, int | float) and not isinstance(parameter.default, bool):
            assert float(rows[name][0]) == parameter.default, name


def test_clients_draws_the_tree_of_errors() -> None:
    tree = inspect.cleandoc(errors.__doc__ or "").split("\n\n")[1]
    drawn = [code for _, code in Document("docs/clients.md").blocks("text")]
    assert drawn == [inspect.cleandoc(tree) + "\n"]


def test_limits_has_every_limit_that_the_server_tells() -> None:
    rows = Document("docs/limits.md").table("limit")
    told = [field.name for field in info_service_pb2.Limits.DESCRIPTOR.fields]
    defaults = {field.name: field.default for field in dataclasses.fields(Limits)}
    assert {name: int(cells[0]) for name, cells in rows.items()} == {name: defaults[name] for name in told}


def test_limits_has_the_bounds_that_are_options() -> None:
    defaults: dict[str, Any] = {option.opts[0]: option.default for option in serve.params}
    rows = [cells for cells in Document("docs/limits.md").table("what").values() if "--" in cells[0]]
    assert len(rows) == 8
    for bound, default in rows:
        options = re.findall(r"--[a-z-]+", bound)
        assert [float(default)] == [float(defaults[option]) for option in options], bound


def test_protocol_has_every_reason_with_its_code_and_its_metadata() -> None:
    rows = Document("docs/protocol.md").table("reason")
    reasons = [name.removeprefix("ERROR_REASON_") for name in errors_pb2.ErrorReason.DESCRIPTOR.values_by_name]
    assert list(rows) == reasons[1:]
    source = (ROOT / "protos/checkpointd/v1/errors.proto").read_text()
    for reason, (code, metadata) in rows.items():
        comment = re.search(rf"((?:  //.*\n)+)  ERROR_REASON_{reason} =", source)
        assert comment is not None
        text = re.sub(r"\s*//\s*", " ", comment[1])
        assert f"Code: {code.strip('`')}." in text
        promised = text.partition("Metadata: ")[2]
        for key in re.findall(r"`(\w+)`", metadata):
            assert key in promised, reason
        assert bool(metadata) == bool(promised), reason


def test_protocol_has_every_service() -> None:
    folder = ROOT / "protos" / "checkpointd" / "v1"
    files = [file.stem for file in sorted(folder.glob("*.proto"))]
    services = {
        name: f"{stem}.proto"
        for stem in files
        for name in importlib.import_module(f"checkpointd.v1.{stem}_pb2").DESCRIPTOR.services_by_name
    }
    rows = Document("docs/protocol.md").table("service")
    named = dict(re.findall(r"^\[`(\w+)`\]\(.*/(\w+\.proto)\)$", "\n".join(rows), re.MULTILINE))
    assert len(rows) == len(services)
    assert named == services


def test_architecture_names_every_table() -> None:
    rows = Document("docs/architecture.md").table("table")
    folder = ROOT / "server" / "checkpointd_server" / "store" / "migrations"
    created = {
        table
        for file in folder.rglob("*.sql")
        for table in re.findall(r"CREATE TABLE __schema__\.(\w+)", file.read_text())
    }
    assert set(rows) == created | {"migrations", "item_vectors"}
