"""What is wrong with a file of ``cluster/``, as far as can be told without a cloud: schemas, and rules beyond them.

The rules on Ray's objects are those by which KubeRay 1.7 refuses them (validation.go), and names that it makes longer.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from zoneinfo import available_timezones

import jsonschema  # type: ignore[import-untyped]
import kubernetes_validate
import yaml
from botocore.session import get_session
from botocore.validate import ParamValidator
from packaging.version import Version

import gotd_ray

ROOT = Path(__file__).parent.parent
LAUNCHER = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "cluster").glob("*.yaml"))
KUBERNETES = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "cluster" / "kubernetes").glob("*.yaml"))

Object = dict[str, Any]

LONGEST = {
    "RayCluster": 63 - len("-serve-svc"),
    "RayJob": 63 - len("-serve-svc") - len("-abcde"),
    "RayCronJob": 63 - len("-serve-svc") - len("-abcde") - len("-29876543"),
    "CronJob": 63 - len("-29876543") - 2,
}
"""Characters of a name, so that what is made of it is a name, too: services, clusters of jobs, jobs of minutes."""

PACKAGED = {"cpu", "memory", "ephemeral-storage", "nvidia.com/gpu"}
"""What a container may ask for."""

GCP_KEYS = {
    "": {"machineType", "disks", "metadata", "serviceAccounts", "scheduling"},
    "disks": {"boot", "autoDelete", "type", "initializeParams"},
    "initializeParams": {"diskSizeGb", "diskType", "sourceImage"},
    "metadata": {"items"},
    "items": {"key", "value"},
    "serviceAccounts": {"email", "scopes"},
    "scheduling": {"onHostMaintenance", "provisioningModel", "instanceTerminationAction"},
}
"""Keys of an instance in Google's Compute API, of those that we use: no package on PyPI that we need has its schema."""


def read(file: str) -> Object:
    content: Object = yaml.safe_load((ROOT / file).read_text(encoding="utf-8"))
    return content


def problems(content: Object) -> list[str]:
    """What is wrong with a launcher's file or an object of Kubernetes."""
    if "cluster_name" in content:
        return [*_refused(content, launcher_schema()), *_launcher(content)]
    kind = content.get("kind")
    if kind == "CronJob":
        # The rules read what a schema has let through.
        return [*_core(content)] or [*_named(content), *_scheduled(content["spec"]), *_nightly(content["spec"])]
    if kind not in ("RayCluster", "RayJob", "RayCronJob"):
        return [f"kind {kind}"]
    if found := [*_kuberay(content), *_named(content)]:
        return found
    spec = content["spec"]
    if kind == "RayCronJob":
        return [*_scheduled(spec), *_job(spec["jobTemplate"])]
    return [*(_job if kind == "RayJob" else _cluster)(spec)]


@cache
def launcher_schema() -> Object:
    """The schema by which `ray up` checks a file; it comes with Ray."""
    spec = find_spec("ray")
    assert spec is not None and spec.origin is not None
    schema: Object = json.loads((Path(spec.origin).parent / "autoscaler" / "ray-schema.json").read_text())
    provider = schema["properties"]["provider"]
    return schema | {"properties": schema["properties"] | {"provider": provider | {"additionalProperties": False}}}


def schemas() -> Path | None:
    """The folder of KubeRay's schemas."""
    folder = os.environ.get("GOTD_SCHEMAS")
    return Path(folder) / "kuberay-1.7" if folder else None


@cache
def _validator(kind: str) -> Any:
    folder = schemas()
    assert folder is not None
    return jsonschema.Draft202012Validator(_closed(json.loads((folder / f"{kind.lower()}.json").read_text())))


def _closed(schema: Any) -> Any:
    """A structural schema that refuses keys that it does not name, and takes a number where Kubernetes does."""
    if isinstance(schema, list):
        return [_closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: _closed(value) for key, value in schema.items()}
    if isinstance(schema.get("properties"), dict) and not schema.get("x-kubernetes-preserve-unknown-fields"):
        found.setdefault("additionalProperties", False)
    if schema.get("x-kubernetes-int-or-string"):
        found["anyOf"] = [{"type": "integer"}, {"type": "string"}]
    return found


def _kuberay(content: Object) -> Iterator[str]:
    """Metadata is open in the schemas of custom resources: Kubernetes itself knows it."""
    known = {"name", "namespace", "labels", "annotations"}
    yield from (f"metadata.{key}" for key in content.get("metadata", {}) if key not in known)
    yield from (f"no {key}" for key in ("apiVersion", "kind", "metadata", "spec") if key not in content)
    if content.get("apiVersion") != "ray.io/v1":
        yield f"apiVersion {content.get('apiVersion')}"
    for error in _validator(content["kind"]).iter_errors({key: v for key, v in content.items() if key != "metadata"}):
        yield error.message


def _refused(content: Object, schema: Object) -> Iterator[str]:
    yield from (error.message for error in jsonschema.Draft202012Validator(schema).iter_errors(content))


def _core(content: Object) -> Iterator[str]:
    """By the schemas of Kubernetes' own objects."""
    if missing := {"apiVersion", "kind", "spec"} - set(content):
        yield f"no {missing}"
        return
    try:
        kubernetes_validate.validate(content, "1.30", strict=True)
    except kubernetes_validate.ValidationError as error:
        yield error.message


def _named(content: Object) -> Iterator[str]:
    name, longest = content.get("metadata", {}).get("name", ""), LONGEST[content["kind"]]
    if not re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", name):
        yield f"the name {name!r} is none of DNS-1035"
    if len(name) > longest:
        yield f"the name {name!r} has {len(name)} characters, and {longest} leave room for what is made of it"


def _scheduled(spec: Object) -> Iterator[str]:
    if not re.fullmatch(r"([\d*,/-]+ ){4}[\d*,/-]+", spec.get("schedule", "")):
        yield f"the schedule {spec.get('schedule')!r}"
    if spec.get("timeZone") not in available_timezones():
        yield f"the time zone {spec.get('timeZone')!r}"


def _nightly(spec: Object) -> Iterator[str]:
    if spec.get("concurrencyPolicy") != "Forbid":
        yield f"concurrencyPolicy {spec.get('concurrencyPolicy')}"
    for container in spec["jobTemplate"]["spec"]["template"]["spec"]["containers"]:
        yield from _asked(container["resources"])


def _asked(resources: Object) -> Iterator[str]:
    for amounts in resources.values():
        yield from (f"asks for {key}" for key in amounts if key not in PACKAGED)


def _job(spec: Object) -> Iterator[str]:
    rules = spec.get("deletionStrategy", {}).get("deletionRules", [])
    selects, interactive = "clusterSelector" in spec, spec.get("submissionMode") == "InteractiveMode"
    if "rayClusterSpec" not in spec and not selects:
        yield "neither rayClusterSpec nor clusterSelector"
    if "entrypoint" not in spec and not interactive:
        yield "no entrypoint"
    if rules and (spec.get("shutdownAfterJobFinishes") or spec.get("ttlSecondsAfterFinished")):
        yield "deletionRules, and an older way to delete"
    if spec.get("ttlSecondsAfterFinished") and not spec.get("shutdownAfterJobFinishes"):
        yield "ttlSecondsAfterFinished without shutdownAfterJobFinishes"
    if spec.get("backoffLimit", 0) > 0 and (selects or interactive):
        yield "backoffLimit on a cluster that is not the job's"
    if spec.get("activeDeadlineSeconds", 1) <= 0:
        yield "activeDeadlineSeconds is not positive"
    yield from _deleted(rules, spec.get("rayClusterSpec", {}).get("enableInTreeAutoscaling", False))
    if "rayClusterSpec" in spec:
        yield from _cluster(spec["rayClusterSpec"])


def _deleted(rules: list[Object], grows: bool) -> Iterator[str]:
    when: dict[str, dict[str, int]] = {}
    for rule in rules:
        states = [rule["condition"][key] for key in ("jobStatus", "jobDeploymentStatus") if key in rule["condition"]]
        if len(states) != 1:
            yield f"a deletion at {states}"
            continue
        times = when.setdefault(states[0], {})
        if rule["policy"] in times:
            yield f"two rules of {rule['policy']} at {states[0]}"
        times[rule["policy"]] = rule["condition"].get("ttlSeconds", 0)
        if grows and rule["policy"] == "DeleteWorkers":
            yield "DeleteWorkers with an autoscaler"
    for state, times in when.items():
        order = [times[policy] for policy in ("DeleteWorkers", "DeleteCluster", "DeleteSelf") if policy in times]
        if order != sorted(order):
            yield f"at {state} the whole is deleted before its part"


def _cluster(spec: Object) -> Iterator[str]:
    workers = spec.get("workerGroupSpecs", [])
    groups = {"the head": spec["headGroupSpec"]} | {group["groupName"]: group for group in workers}
    grows, auth = spec.get("enableInTreeAutoscaling", False), spec.get("authOptions", {}).get("mode")
    if len(groups) != 1 + len(workers):
        yield "two groups of one name"
    if auth == "token" and Version(spec.get("rayVersion", "0")) < Version("2.52.0"):
        yield f"tokens need Ray 2.52, rayVersion is {spec.get('rayVersion')}"
    if spec.get("rayVersion") != version("ray"):
        yield f"rayVersion {spec.get('rayVersion')}"
    yield from _asked(spec.get("autoscalerOptions", {}).get("resources", {}))
    if not grows and ("autoscalerOptions" in spec or any("priority" in group for group in workers)):
        yield "settings of an autoscaler, and none"
    for name, group in groups.items():
        pod, started = group["template"]["spec"], group.get("rayStartParams", {})
        both = {"num-cpus", "num-gpus", "memory", "resources"} & set(started)
        if both and group.get("resources"):
            yield f"{name}: resources and rayStartParams both say how much"
        if "labels" in started:
            yield f"{name}: labels in rayStartParams"
        yield from (f"{name}: ray start has no --{key}" for key in started if f"--{key}" not in start_options())
        if grows and spec.get("autoscalerOptions", {}).get("version") == "v2" and pod.get("restartPolicy") != "Never":
            yield f"{name}: autoscaler v2 needs restartPolicy Never, not {pod.get('restartPolicy')}"
        least, most = group.get("minReplicas", 0), group.get("maxReplicas", 0)
        if not 0 <= least <= group.get("replicas", least) <= most and name != "the head":
            yield f"{name}: {least} to {most} replicas"
        # What the custom resources' schemas leave open.
        yield from (f"{name}: {said}" for said in _core({"apiVersion": "v1", "kind": "Pod", "spec": pod}))
        yield from (f"{name}: {said}" for said in _pod(pod))


def _pod(pod: Object) -> Iterator[str]:
    volumes = {volume["name"] for volume in pod.get("volumes", [])}
    if pod.get("securityContext", {}).get("runAsNonRoot") is not True:
        yield "it may run as root"
    for container in pod["containers"]:
        if container["image"].partition(":")[2] != gotd_ray.__version__:
            yield f"the image {container['image']} is not of this version"
        yield from _asked(container["resources"])
        asked, most = (container["resources"].get(key, {}) for key in ("requests", "limits"))
        if asked != most:  # Ray would plan with CPUs, memory or GPUs that are not there
            yield f"asks for {asked}, and may have {most}"
        if unknown := {mount["name"] for mount in container.get("volumeMounts", [])} ^ volumes:
            yield f"volumes {unknown}"


@cache
def start_options() -> frozenset[str]:
    from ray.scripts.scripts import start

    return frozenset(option for parameter in start.params for option in parameter.opts)


@cache
def _run_instances() -> Any:
    return get_session().get_service_model("ec2").operation_model("RunInstances").input_shape


def _launcher(content: Object) -> Iterator[str]:
    types = content.get("available_node_types", {})
    if content.get("head_node_type") not in types:
        yield f"no type {content.get('head_node_type')}"
    for name, kind in types.items():
        if unknown := set(kind.get("resources", {})) - {"CPU", "GPU", "on_demand"}:
            yield f"{name}: resources {unknown}"
        if content.get("provider", {}).get("type") == "aws":
            counted = kind.get("node_config", {}) | {"MinCount": 1, "MaxCount": 1}
            yield from (f"{name}: {said}" for said in _of_aws(counted, _run_instances()))
        else:
            yield from (f"{name}: {said}" for said in _of_gcp(kind.get("node_config", {}), ""))
        if name != content.get("head_node_type") and not content.get("max_workers"):
            yield f"{name}: max_workers is 0"


def _of_aws(value: Any, shape: Any) -> Iterator[str]:
    """What EC2 does not know, and what is of another type."""
    report = ParamValidator().validate(value, shape)
    if report.has_errors():
        yield report.generate_report()


def _of_gcp(value: Any, under: str) -> Iterator[str]:
    if isinstance(value, list):
        for item in value:
            yield from _of_gcp(item, under)
    elif isinstance(value, dict):
        for key, below in value.items():
            if key not in GCP_KEYS.get(under, ()):
                yield f"{under}.{key}"
            yield from _of_gcp(below, key)
