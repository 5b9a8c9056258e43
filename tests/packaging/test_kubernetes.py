"""deploy/kubernetes: the manifests match Kubernetes' schemas, each other and the server."""

from __future__ import annotations

import copy
from typing import Any

import kubernetes_validate
import pytest
import yaml

from tests.packaging.deployment import DEPLOY, options_of

FOLDER = DEPLOY / "kubernetes"
VERSIONS = ("1.29", kubernetes_validate.latest_version())
"""The oldest Kubernetes release that the manifests support, and the newest with schemas."""

Manifest = dict[str, Any]


def manifests() -> list[Manifest]:
    """Every manifest except Kustomize's, for which there is no schema."""
    files = [file for file in sorted(FOLDER.glob("*.yaml")) if file.name != "kustomization.yaml"]
    return [manifest for file in files for manifest in yaml.safe_load_all(file.read_text())]


def name_of(manifest: Manifest) -> str:
    return f"{manifest['kind']}-{manifest['metadata']['name']}"


def one(kind: str) -> Manifest:
    """The only manifest of its kind."""
    (found,) = (manifest for manifest in manifests() if manifest["kind"] == kind)
    return found


@pytest.fixture
def pod() -> dict[str, Any]:
    """The template of the pods."""
    spec: dict[str, Any] = one("Deployment")["spec"]["template"]["spec"]
    return spec


@pytest.fixture
def container(pod: dict[str, Any]) -> dict[str, Any]:
    (only,) = pod["containers"]
    assert isinstance(only, dict)
    return only


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("manifest", manifests(), ids=name_of)
def test_a_manifest_fits_the_schema(manifest: Manifest, version: str) -> None:
    kubernetes_validate.validate(manifest, version, strict=True)


def test_one_with_a_word_that_kubernetes_does_not_know_does_not() -> None:
    wrong = copy.deepcopy(one("Deployment"))
    wrong["spec"]["template"]["spec"]["containers"][0]["readyProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, VERSIONS[-1], strict=True)


def test_kustomize_lists_all_but_the_secrets() -> None:
    kustomization = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())
    files = {file.name for file in FOLDER.glob("*.yaml")}
    assert set(kustomization["resources"]) == files - {"kustomization.yaml", "secrets.example.yaml"}
    (image,) = kustomization["images"]
    assert image["name"] == one("Deployment")["spec"]["template"]["spec"]["containers"][0]["image"]


def test_everything_selects_the_pods() -> None:
    labels = one("Deployment")["spec"]["template"]["metadata"]["labels"].items()
    for selector in (
        one("Deployment")["spec"]["selector"]["matchLabels"],
        one("Service")["spec"]["selector"],
        one("PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        one("NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
    ):
        assert selector.items() <= labels
    assert one("HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]["name"] == one("Deployment")["metadata"]["name"]
    assert "replicas" not in one("Deployment")["spec"]  # each apply would undo the autoscaler's changes


def test_secrets_and_their_keys_are_those_of_the_example(pod: dict[str, Any], container: dict[str, Any]) -> None:
    secrets = {
        manifest["metadata"]["name"]: set(manifest["stringData"])
        for manifest in manifests()
        if manifest["kind"] == "Secret"
    }
    used = {volume["secret"]["secretName"] for volume in pod["volumes"]}
    for variable in container["env"]:
        if reference := variable.get("valueFrom", {}).get("secretKeyRef"):
            assert reference["key"] in secrets[reference["name"]]
            used.add(reference["name"])
    assert used == set(secrets)
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    files = {
        f"{mounts[volume['name']]}/{key}"
        for volume in pod["volumes"]
        for key in secrets[volume["secret"]["secretName"]]
    }
    named = {variable["value"] for variable in container["env"] if variable.get("value", "").startswith("/secrets/")}
    assert named == files


def test_the_server_takes_its_options(
    pod: dict[str, Any], container: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = {variable["name"]: variable.get("value", "postgresql://db/agents") for variable in container["env"]}
    options = options_of(environment, monkeypatch)
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert str(options["health_listen"]).endswith(f":{ports['health']}',)")
    assert str(options["metrics_listen"]).endswith(f":{ports['metrics']}")
    pause = int(container["lifecycle"]["preStop"]["exec"]["command"][-1])
    assert float(str(options["drain_seconds"])) + pause < pod["terminationGracePeriodSeconds"]


def test_probes_ask_the_port_that_speaks_plain_text(container: dict[str, Any]) -> None:
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert container["startupProbe"]["grpc"]["port"] == ports["health"]
    assert container["readinessProbe"]["grpc"] == {"port": ports["health"], "service": "checkpointd.readiness"}
    # An unavailable database must not end the server.
    assert container["livenessProbe"]["tcpSocket"]["port"] == "health"


def test_ports_by_name_are_there(container: dict[str, Any]) -> None:
    names = {port["name"] for port in container["ports"]}
    assert {port["targetPort"] for port in one("Service")["spec"]["ports"]} <= names
    policy = one("NetworkPolicy")["spec"]
    assert {port["port"] for rule in policy["ingress"] for port in rule["ports"]} <= names
