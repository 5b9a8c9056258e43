"""deploy/compose.yaml and the script that prepares it: a server runs with exactly these files, and mounts exist."""

from __future__ import annotations

import re
import shutil
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from compose_spec import PyCompose
from langgraph.checkpoint.grpc import CheckpointdError, GrpcSaver, TlsOptions

from tests.packaging.deployment import DEPLOY, options_of
from tests.support.calls import checkpoint, config_of
from tests.support.server_process import ServerProcess

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")


def prepare(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs the copy of the script in a folder."""
    return subprocess.run([folder / "prepare.sh", *arguments], capture_output=True, text=True, check=False, timeout=60)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the script."""
    shutil.copy(DEPLOY / "prepare.sh", tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    """The compose file."""
    read: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    return read


def test_the_file_is_valid_by_the_compose_specification(compose: dict[str, Any]) -> None:
    """Covers the whole file, not only the services: networks, volumes and secrets are defined."""
    # With merge keys (`<<`) resolved, which the library treats as unknown fields.
    spec = PyCompose.from_yaml(yaml.safe_dump(compose))
    spec.validate()
    spec.to_spec()
    assert set(spec.service_names()) == set(compose["services"])


@pytest.mark.parametrize("wrong", [{"prots": ["1:1"]}, {"networks": ["nowhere"]}, {"secrets": ["none"]}])
def test_what_is_wrong_in_it_would_be_found(wrong: dict[str, Any], compose: dict[str, Any]) -> None:
    services = {**compose["services"], "wrong": {"image": "wrong", **wrong}}
    with pytest.raises(ValueError, match=r"prots|nowhere|none"):
        PyCompose.from_yaml(yaml.safe_dump({**compose, "services": services})).validate()


def test_a_server_serves_with_what_was_prepared(folder: Path, database_url: str, compose: dict[str, Any]) -> None:
    made = prepare(folder, "localhost", "acme")
    assert made.returncode == 0, made.stderr
    key = made.stderr.split()[-1]
    assert key.startswith("ckd_")
    secrets = folder / "secrets"
    assert key not in "".join(path.read_text() for path in secrets.iterdir())
    files = {name: folder / secret["file"] for name, secret in compose["secrets"].items()}
    assert all(path.is_file() for path in files.values())
    service = compose["services"]["checkpointd"]
    assert set(service["secrets"]) == set(files)
    env = {
        name: str(files[value.removeprefix("/run/secrets/")])
        for name, value in service["environment"].items()
        if value.startswith("/run/secrets/")
    }
    with (
        ServerProcess("--database-url", database_url, log_dir=folder, env=env) as server,
        GrpcSaver(
            f"localhost:{server.target.rpartition(':')[2]}",
            token=key,
            tls=TlsOptions(root_certificates=(secrets / "ca.crt").read_bytes()),
        ) as saver,
    ):
        assert saver.get_tuple(saver.put(config_of("t"), checkpoint("1"), {}, {}))
        with (
            GrpcSaver(
                f"localhost:{server.target.rpartition(':')[2]}",
                token="ckd_another",
                tls=TlsOptions(root_certificates=(secrets / "ca.crt").read_bytes()),
            ) as stranger,
            pytest.raises(CheckpointdError),
        ):
            stranger.get_tuple(config_of("t"))


def test_what_is_there_is_left_alone(folder: Path) -> None:
    assert prepare(folder, "localhost").returncode == 0
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    again = prepare(folder, "other.example.com")
    assert (again.returncode, again.stderr) == (0, "")
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_nobody_else_on_the_machine_gets_at_secrets(folder: Path) -> None:
    assert prepare(folder, "192.0.2.1").returncode == 0
    assert stat.S_IMODE((folder / "secrets").stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / ".env").stat().st_mode) == 0o600
    assert stat.S_IMODE((folder / "secrets" / "ca.key").stat().st_mode) == 0o600
    shown = subprocess.run(
        ["openssl", "x509", "-in", folder / "secrets" / "tls.crt", "-noout", "-ext", "subjectAltName"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "IP Address:192.0.2.1" in shown.stdout


@pytest.mark.parametrize("arguments", [(), ("a b",), ("",), ("host", 'x"y'), ("a", "b", "c")])
def test_what_can_not_be_is_refused_and_nothing_made(folder: Path, arguments: tuple[str, ...]) -> None:
    refused = prepare(folder, *arguments)
    assert refused.returncode == 2
    assert refused.stderr
    assert [path.name for path in folder.iterdir()] == ["prepare.sh"]


def test_the_server_takes_its_options(compose: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    options = options_of(compose["services"]["checkpointd"]["environment"], monkeypatch)
    grace = int(compose["services"]["checkpointd"]["stop_grace_period"].removesuffix("s"))
    assert float(str(options["drain_seconds"])) < grace
    assert not options["insecure_without_tls"]
    assert not options["insecure_without_tokens"]


def test_all_that_is_mounted_is_there(compose: dict[str, Any]) -> None:
    for service in compose["services"].values():
        for mount in service.get("volumes", ()):
            source = mount.partition(":")[0]
            assert (DEPLOY / source).exists() if source.startswith(".") else source in compose["volumes"], mount
        assert set(service["networks"]) <= set(compose["networks"])
        assert set(service.get("depends_on", ())) <= set(compose["services"])


def test_nothing_but_the_server_s_port_is_published_to_others(compose: dict[str, Any]) -> None:
    published = {name: service.get("ports", []) for name, service in compose["services"].items()}
    assert published.pop("checkpointd") == ["50051:50051"]
    assert all(port.startswith("127.0.0.1:") for ports in published.values() for port in ports)


def test_variables_of_the_file_are_made_by_the_script(folder: Path) -> None:
    wanted = set(re.findall(r"\$\{(\w+)", (DEPLOY / "compose.yaml").read_text()))
    assert prepare(folder, "localhost").returncode == 0
    made = dict(line.split("=", 1) for line in (folder / ".env").read_text().splitlines())
    assert set(made) == wanted
    assert all(re.fullmatch(r"[0-9a-f]{48}", value) for value in made.values())


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_prometheus_takes_its_configuration() -> None:
    checked = subprocess.run(
        ["promtool", "check", "config", DEPLOY / "prometheus" / "prometheus.yml"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_prometheus_and_grafana_find_what_they_look_for(compose: dict[str, Any]) -> None:
    prometheus = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    (job,) = prometheus["scrape_configs"]
    (discovery,) = job["dns_sd_configs"]
    server = compose["services"]["checkpointd"]
    assert set(discovery["names"]) <= set(compose["services"])
    assert server["environment"]["CHECKPOINTD_METRICS_LISTEN"].endswith(f":{discovery['port']}")
    assert set(compose["services"]["prometheus"]["networks"]) <= set(server["networks"])
    provisioning = DEPLOY / "grafana" / "provisioning"
    (source,) = yaml.safe_load((provisioning / "datasources" / "prometheus.yaml").read_text())["datasources"]
    assert source["url"] == "http://prometheus:9090"
    (provider,) = yaml.safe_load((provisioning / "dashboards" / "checkpointd.yaml").read_text())["providers"]
    assert any(f":{provider['options']['path']}/" in mount for mount in compose["services"]["grafana"]["volumes"])
