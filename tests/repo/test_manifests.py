"""What the operator applies: valid for Kubernetes, restricted, and about the program as it is.

The components' patches are applied by the real kustomize that kubectl carries, to the example's Deployment. The one
that Debian ships knows no components, so a kustomization that lists their patches is written for it.
"""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from sidecar.config.load import parse
from sidecar.control.admin import Admin
from tests.fakes.program import FakeProgram

ROOT = Path(__file__).parents[2]
KUBERNETES = ROOT / "config/kubernetes"
FILES = sorted(KUBERNETES.rglob("*.yaml"))
KNOWN = {"v1", "apps/v1", "rbac.authorization.k8s.io/v1"}
"""The API groups that every cluster has; what the Prometheus operator and kustomize bring, no schema here knows."""


def documents(path: Path) -> list[dict[str, Any]]:
    return [one for one in yaml.safe_load_all(path.read_text()) if one]


def built(tmp_path: Path, *components: str, labels: str = "") -> dict[str, dict[str, Any]]:
    """The example as `kubectl apply -k` would send it, by kind, with these components."""
    here = tmp_path / "example"
    shutil.copytree(KUBERNETES / "example", here)
    patches = []
    for name in components:
        (file,) = {one.name for one in (KUBERNETES / name).glob("*.yaml")} - {"kustomization.yaml"}
        text = (KUBERNETES / name / file).read_text().replace("metadata: {name: any}", "metadata: {name: orders}")
        (here / f"{name}.yaml").write_text(text)
        patches.append(f"{name}.yaml")
    kustomization = yaml.safe_load((here / "kustomization.yaml").read_text())
    options = [one.pop("options") for one in kustomization["configMapGenerator"]]
    del kustomization["components"]
    whole = {**kustomization, "patchesStrategicMerge": patches, "generatorOptions": options[0]}
    (here / "kustomization.yaml").write_text(yaml.safe_dump(whole))
    done = subprocess.run(["kubectl", "kustomize", here], capture_output=True, text=True, check=True)
    return {one["kind"]: one for one in yaml.safe_load_all(done.stdout)}


def pod(parts: dict[str, dict[str, Any]]) -> dict[str, Any]:
    spec: dict[str, Any] = parts["Deployment"]["spec"]["template"]["spec"]
    return spec


def validate(resource: dict[str, Any]) -> None:
    kubernetes_validate.validate(resource, "1.31", strict=True)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(KUBERNETES)))
def test_each_resource_is_valid(path: Path):
    for resource in documents(path):
        if resource.get("apiVersion") in KNOWN and "patches" not in resource and path.parent.name not in COMPONENTS:
            validate(resource)


COMPONENTS = ("component", "plain", "agent")


@pytest.mark.parametrize(
    "components", [("component",), ("plain",), ("component", "agent")], ids=lambda names: "+".join(names)
)
def test_the_whole_is_valid_and_restricted(components: tuple[str, ...], tmp_path: Path):
    parts = built(tmp_path, *components)
    for resource in parts.values():
        validate(resource)
    spec = pod(parts)
    assert spec["securityContext"]["runAsNonRoot"] is True
    containers = [*spec["containers"], *spec.get("initContainers", [])]
    assert {one["name"] for one in containers} >= {"orders", "sidecar"}
    for one in containers:
        context = {**spec["securityContext"], **one["securityContext"]}
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"]["drop"] == ["ALL"]
        assert context["seccompProfile"]["type"] == "RuntimeDefault"
        assert context["runAsUser"] > 0
        assert "cpu" not in one.get("resources", {}).get("limits", {}), "throttling is latency"
    mounted = {mount["name"] for one in containers for mount in one.get("volumeMounts", [])}
    assert mounted == {volume["name"] for volume in spec["volumes"]}
    assert {next(iter(set(volume) - {"name"})) for volume in spec["volumes"]} <= {
        "configMap", "emptyDir", "secret", "persistentVolumeClaim",
    }  # fmt: skip


def test_probes_ask_what_the_probes_door_answers(tmp_path: Path):
    spec = pod(built(tmp_path, "component"))
    (sidecar,) = spec["initContainers"]
    (service,) = spec["containers"]
    config = parse((KUBERNETES / "example/sidecar.yaml").read_text(), env={"POD_NAME": "orders-1"})
    assert config.admin.probes is not None
    door = int(config.admin.probes.bind.rpartition(":")[2])
    ports = {port["name"]: port["containerPort"] for port in sidecar["ports"]}
    assert ports == {"http": 8080, "probes": door}
    asked = [sidecar[kind]["httpGet"] for kind in ("startupProbe", "livenessProbe", "readinessProbe")]
    asked.append(service["livenessProbe"]["httpGet"])
    answered = Admin(config.admin, *2 * (FakeProgram(),))._probes
    for probe in asked:
        assert ports.get(probe["port"], probe["port"]) == door
        assert probe["path"] in answered


def test_the_native_sidecar_outlives_the_service_and_hears_of_the_end_first(tmp_path: Path):
    spec = pod(built(tmp_path, "component"))
    (sidecar,) = spec["initContainers"]
    assert sidecar["restartPolicy"] == "Always"
    assert sidecar["lifecycle"]["preStop"]["exec"]["command"] == ["sidecar", "drain"]
    config = parse((KUBERNETES / "example/sidecar.yaml").read_text(), env={"POD_NAME": "orders-1"})
    assert spec["terminationGracePeriodSeconds"] > config.shutdown.delay + config.shutdown.drain_timeout


def test_the_mounted_file_can_change(tmp_path: Path):
    """A subPath is a copy for ever, and a name with a hash replaces every pod."""
    parts = built(tmp_path, "component")
    (sidecar,) = pod(parts)["initContainers"]
    (mount,) = (one for one in sidecar["volumeMounts"] if one["mountPath"] == "/etc/sidecar")
    assert "subPath" not in mount
    assert parts["ConfigMap"]["metadata"]["name"] == "sidecar"
    assert set(parts["ConfigMap"]["data"]) == {"sidecar.yaml"}


def test_plain_differs_from_native_in_nothing_else():
    native = documents(KUBERNETES / "component/sidecar.yaml")[0]["spec"]["template"]["spec"]
    plain = documents(KUBERNETES / "plain/sidecar.yaml")[0]["spec"]["template"]["spec"]
    (before,), (after,) = native.pop("initContainers"), plain.pop("containers")
    del before["restartPolicy"]
    assert (native, before) == (plain, after)


@pytest.mark.parametrize("path", [*KUBERNETES.rglob("kustomization.yaml")], ids=lambda path: path.parent.name)
def test_kustomizations_name_what_is_there(path: Path):
    (whole,) = documents(path)
    named = [*whole.get("resources", []), *whole.get("components", [])]
    named += [one["path"] for one in whole.get("patches", [])]
    named += [file for one in whole.get("configMapGenerator", []) for file in one["files"]]
    assert [name for name in named if not (path.parent / name).exists()] == []


def test_the_monitor_scrapes_both_programs(tmp_path: Path):
    (monitor,) = documents(KUBERNETES / "monitoring/podmonitor.yaml")
    parts = built(tmp_path, "component", "agent")
    ports = {port["name"] for one in pod(parts)["initContainers"] for port in one["ports"]}
    assert {one["port"] for one in monitor["spec"]["podMetricsEndpoints"]} == ports - {"http"}
    labels = parts["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert monitor["spec"]["selector"]["matchLabels"].items() <= labels.items()


def test_roles_allow_one_thing_each():
    for path in (KUBERNETES / "rbac").glob("*.yaml"):
        roles = [one for one in documents(path) if one["kind"] in {"Role", "ClusterRole"}]
        assert [one["kind"] for one in roles] == ["Role"], path
        assert all("*" not in {*rule["verbs"], *rule["resources"]} for one in roles for rule in one["rules"])


def test_compose_shares_one_network_and_publishes_no_admin():
    compose = yaml.safe_load((ROOT / "config/compose/compose.yaml").read_text())
    sidecar, service = compose["services"]["sidecar"], compose["services"]["orders"]
    assert service["network_mode"] == "service:sidecar"
    assert all(port.startswith("127.0.0.1:") or port == "8080:8080" for port in sidecar["ports"])
    assert sidecar["read_only"] is True
    assert sidecar["healthcheck"]["test"] == ["CMD", "sidecar", "status"]
    for volume in sidecar["volumes"]:
        source = volume.partition(":")[0]
        assert source in compose["volumes"] or os.path.exists(ROOT / "config/compose" / source)


@pytest.mark.parametrize("path", ["config/compose/sidecar.yaml", "config/kubernetes/example/sidecar.yaml"])
def test_configurations_are_valid(path: str):
    assert parse((ROOT / path).read_text(), path, {"POD_NAME": "orders-1"}).listeners
