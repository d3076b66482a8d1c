"""What is in ``cluster/`` passes its schemas, names nothing that does not exist, and a wrong key anywhere is seen."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator
from copy import deepcopy
from importlib.metadata import version
from typing import Any

import pytest
import typer
import yaml
from manifests import KUBERNETES, LAUNCHER, ROOT, Object, problems, read, schemas

import gotd_ray
from gotd_ray import cluster

HOME, IMAGE = "/home/ray/gotd/", f"registry.example.com/gotd:{gotd_ray.__version__}"
DOCKERFILE = (ROOT / "cluster" / "Dockerfile").read_text(encoding="utf-8")
ALL = [*LAUNCHER, *KUBERNETES]
ANY = {("available_node_types",), ("file_mounts",)}
"""Places whose keys are names of the user's."""


def checkable(file: str) -> Object:
    """Its content, where there is a schema to check it by."""
    content = read(file)
    if content.get("apiVersion") == "ray.io/v1" and schemas() is None:
        pytest.skip("set GOTD_SCHEMAS to a folder with kuberay-1.7/raycluster.json, rayjob.json and raycronjob.json")
    return content


@pytest.mark.parametrize("file", ALL)
def test_a_file_passes(file: str) -> None:
    assert problems(checkable(file)) == []


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of all keys."""
    if isinstance(value, dict):
        for key, below in value.items():
            if path not in ANY:
                yield (*path, key)
            yield from places(below, (*path, key))
    elif isinstance(value, list):
        for number, below in enumerate(value):
            yield from places(below, (*path, number))


@pytest.mark.parametrize("file", ALL)
def test_a_wrong_key_anywhere_is_seen(file: str) -> None:
    content = checkable(file)
    unseen = []
    for *above, key in places(content):
        changed = deepcopy(content)
        parent = changed
        for step in above:
            parent = parent[step]
        parent[f"{key}x"] = parent.pop(key)
        if not problems(changed):
            unseen.append((*above, key))
    assert not unseen and len(list(places(content))) > 15


def without(*path: Any) -> Callable[[Object], None]:
    def change(content: Object) -> None:
        for step in path[:-1]:
            content = content[step]
        del content[path[-1]]

    return change


def with_(value: Any, *path: Any) -> Callable[[Object], None]:
    def change(content: Object) -> None:
        for step in path[:-1]:
            content = content.setdefault(step, {}) if isinstance(content, dict) else content[step]
        content[path[-1]] = value

    return change


GROUP = ("spec", "workerGroupSpecs", 0)
RULES = ("spec", "deletionStrategy", "deletionRules")


@pytest.mark.parametrize(
    ("kind", "change", "said"),
    [
        ("raycluster", with_("2.51.0", "spec", "rayVersion"), "tokens need Ray 2.52, rayVersion is 2.51.0"),
        ("raycluster", without("spec", "rayVersion"), "tokens need Ray 2.52, rayVersion is None"),
        ("raycluster", with_("2.61.0", "spec", "rayVersion"), "rayVersion 2.61.0"),
        (
            "raycluster",
            with_("Always", *GROUP, "template", "spec", "restartPolicy"),
            "gpu-spot: autoscaler v2 needs restartPolicy Never, not Always",
        ),
        ("raycluster", with_({"CPU": "0"}, "spec", "headGroupSpec", "resources"), "both say how much"),
        ("raycluster", with_("a=b", *GROUP, "rayStartParams", "labels"), "gpu-spot: labels in rayStartParams"),
        ("raycluster", with_("1", *GROUP, "rayStartParams", "num-cpu"), "ray start has no --num-cpu"),
        ("raycluster", with_("gpu-on-demand", *GROUP, "groupName"), "two groups of one name"),
        ("raycluster", with_(9, *GROUP, "minReplicas"), "9 to 8 replicas"),
        ("raycluster", with_("gotd_a", "metadata", "name"), "none of DNS-1035"),
        ("raycluster", with_("1gotd", "metadata", "name"), "none of DNS-1035"),
        ("raycluster", with_("a" * 54, "metadata", "name"), "has 54 characters, and 53 leave room"),
        ("rayjob", with_("a" * 48, "metadata", "name"), "has 48 characters, and 47 leave room"),
        ("raycronjob", with_("a" * 39, "metadata", "name"), "has 39 characters, and 38 leave room"),
        ("cronjob", with_("a" * 53, "metadata", "name"), "has 53 characters, and 52 leave room"),
        ("rayjob", with_(True, "spec", "shutdownAfterJobFinishes"), "deletionRules, and an older way to delete"),
        ("rayjob", with_({"ray.io/cluster": "gotd"}, "spec", "clusterSelector"), "backoffLimit on a cluster"),
        ("rayjob", without("spec", "entrypoint"), "no entrypoint"),
        ("rayjob", with_("DeleteSelf", *RULES, 0, "policy"), "two rules of DeleteSelf at SUCCEEDED"),
        ("rayjob", with_(9, *RULES, 1, "condition", "ttlSeconds"), None),
        ("rayjob", with_(9, *RULES, 4, "condition", "ttlSeconds"), "at FAILED the whole is deleted before its part"),
        (
            "rayjob",
            with_(True, "spec", "rayClusterSpec", "enableInTreeAutoscaling"),
            "DeleteWorkers with an autoscaler",
        ),
        ("raycronjob", with_("0 3 * *", "spec", "schedule"), "the schedule '0 3 * *'"),
        ("cronjob", with_("Utopia", "spec", "timeZone"), "the time zone 'Utopia'"),
        ("cronjob", with_("Forbidden", "spec", "concurrencyPolicy"), "concurrencyPolicy Forbidden"),
    ],
)
def test_rules_that_no_schema_says(kind: str, change: Callable[[Object], None], said: str | None) -> None:
    content = deepcopy(checkable(f"cluster/kubernetes/{kind}.yaml"))
    change(content)
    found = problems(content)
    assert any(said in one for one in found) if said else not found


def test_what_is_made_every_night_is_what_is_made_once_but_a_refresh() -> None:
    once, nightly = (read(f"cluster/kubernetes/{kind}.yaml")["spec"] for kind in ("rayjob", "raycronjob"))
    once["entrypoint"] = once["entrypoint"].replace("jobs/run.py", "jobs/refresh.py")
    assert nightly["jobTemplate"] == once
    nightly = read("cluster/kubernetes/cronjob.yaml")["spec"]
    assert nightly["concurrencyPolicy"] == "Forbid"
    (pod,) = nightly["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    assert shlex.join(pod["args"]) == once["entrypoint"] and pod["image"] == IMAGE


def test_the_nightly_job_finds_the_standing_cluster() -> None:
    standing = read("cluster/kubernetes/raycluster.yaml")["metadata"]["name"]
    job = read("cluster/kubernetes/cronjob.yaml")["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    (pod,) = job["containers"]
    parse_ray([*pod["command"][1:], *pod["args"]])
    assert f"http://{standing}-head-svc:8265" in pod["command"]
    environment = {variable["name"]: variable for variable in pod["env"]}
    secret = environment["RAY_AUTH_TOKEN"]["valueFrom"]["secretKeyRef"]
    assert environment["RAY_AUTH_MODE"]["value"] == "token" and secret == {"name": standing, "key": "auth_token"}


@pytest.mark.parametrize("kind", ["raycluster", "rayjob", "raycronjob"])
def test_what_a_job_starts_is_in_the_image_and_what_it_reads_is_mounted(kind: str) -> None:
    content = read(f"cluster/kubernetes/{kind}.yaml")["spec"]
    job = content.get("jobTemplate", content)
    started = job.get("entrypoint") or shlex.join(nightly_arguments())
    program, script, run = shlex.split(started)
    assert program == "python" and script.startswith(f"{HOME}jobs/")
    assert (ROOT / script.removeprefix(HOME)).is_file() and f"COPY jobs {HOME}jobs" in DOCKERFILE
    head = job.get("rayClusterSpec", job)["headGroupSpec"]["template"]["spec"]
    mounts = {mount["mountPath"]: mount["name"] for mount in head["containers"][0]["volumeMounts"]}
    folder, _, name = run.rpartition("/")
    (volume,) = (one for one in head["volumes"] if one["name"] == mounts[folder])
    assert f"create configmap {volume['configMap']['name']} --from-file={name}=" in (
        ROOT / "cluster" / "kubernetes" / ("raycluster.yaml" if kind == "raycluster" else "rayjob.yaml")
    ).read_text(encoding="utf-8")


def nightly_arguments() -> list[str]:
    spec = read("cluster/kubernetes/cronjob.yaml")["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    found: list[str] = spec["containers"][0]["args"]
    return found


# --- commands that stand in comments and on the page


PAGES = ["docs/clusters.md", "cluster/local.sh", "cluster/Dockerfile", *ALL]
SET = re.compile(r"^(\w+=\S+ )+")
FIRST = re.compile(r"(?:\.venv/bin/)?(ray|gotd|kubectl|docker|cluster/local\.sh) ")


def commands(page: str) -> list[list[str]]:
    """The words of each command, without what follows a #."""
    lines = [re.sub(r"^#? {3,4}", "", line) for line in (ROOT / page).read_text(encoding="utf-8").splitlines()]
    lines = [SET.sub("", line) for line in lines]
    return [shlex.split(line, comments=True) for line in lines if FIRST.match(line)]


def parse_ray(words: list[str]) -> None:
    """As Ray's own command line does; nothing is started."""
    from ray.scripts.scripts import cli

    command: Any = cli
    while hasattr(command, "commands"):
        command, words = command.commands[words[0]], words[1:]
    command.make_context(command.name, list(words))


@pytest.mark.parametrize("page", PAGES)
def test_commands_can_be_given(page: str) -> None:
    from gotd_ray.cli import app

    known = typer.main.get_command(app)
    for program, *words in commands(page):
        if program == "ray":
            parse_ray(words)
        elif program.endswith("gotd"):
            command = known.commands[words[0]]  # type: ignore[attr-defined]
            command.make_context(words[0], words[1:])
        elif program.endswith("local.sh"):
            assert words[0] in ("start", "stop", "status")
        named = [word for word in words if re.match(r"(cluster|jobs)/", word)]
        assert [word for word in named if not (ROOT / word).is_file()] == []


@pytest.mark.parametrize("page", PAGES)
def test_objects_in_commands_are_those_of_the_files(page: str) -> None:
    found = [read(file) for file in KUBERNETES]
    named = {(one["kind"].lower(), one["metadata"]["name"]) for one in found}
    named |= {("job", name) for kind, name in named if kind == "rayjob"}  # KubeRay's, which submits
    named |= {("service", f"{name}-head-svc") for kind, name in named if kind == "raycluster"}
    named |= {("secret", name) for kind, name in named if kind == "raycluster"}
    for program, *words in commands(page):
        said = [tuple(word.removeprefix("--from=").split("/")) for word in words if re.search(r"^[^.:]+/[^/.]+$", word)]
        said += [(words[1], words[2])] if words[:1] in (["get"], ["delete"]) and len(words) > 2 else []
        made = {("job", "gotd-now")}  # by a command of the page
        assert program != "kubectl" or set(said) <= named | made, words


def test_there_are_commands() -> None:
    found = [words for page in PAGES for words in commands(page)]
    assert {tuple(words[:2]) for words in found} >= {
        *(("ray", word) for word in ("up", "down", "dashboard", "job")),
        *(("kubectl", word) for word in ("apply", "create")),
        ("docker", "build"),
        ("cluster/local.sh", "start"),
    }
    with pytest.raises(Exception, match="No such option"):
        parse_ray(["job", "submit", "--adress", "x", "--", "python"])


# --- the image


def test_the_image_has_the_versions_that_are_tested() -> None:
    bases = re.findall(r"^FROM (\S+)", DOCKERFILE, re.M)
    required = re.search(r'^requires-python = ">=(.*)"$', (ROOT / "pyproject.toml").read_text(), re.M)
    assert required is not None
    assert len(bases) == 2 and set(bases) == {f"python:{required[1]}-slim-bookworm"}
    assert re.findall(r"==([\d.]+)", DOCKERFILE) == [version("torch").partition("+")[0], version("ray")]
    assert f"--tag {IMAGE} ." in DOCKERFILE
    asked = re.search(r'"(ray\[.*\])==', DOCKERFILE)
    assert asked is not None and f'"{asked[1]}>=' in (ROOT / "pyproject.toml").read_text()


def test_the_image_runs_as_the_user_of_the_pods() -> None:
    last = DOCKERFILE.rpartition("\nFROM ")[2]
    (user,) = re.findall(r"^USER (\d+):", last, re.M)
    assert f"useradd --uid {user} " in last and "pip install" not in last
    pods = {line for file in KUBERNETES for line in re.findall(r"runAsUser: (\d+)", (ROOT / file).read_text())}
    assert pods == {user} != {"0"}


def test_what_the_image_copies_is_sent_to_the_builder() -> None:
    sent = re.findall(r"^!(\S+)", (ROOT / "cluster" / "Dockerfile.dockerignore").read_text(), re.M)
    copied = [word for line in re.findall(r"^COPY (?!--from)(.*)$", DOCKERFILE, re.M) for word in line.split()[:-1]]
    assert sorted(copied) == sorted(sent) and all((ROOT / word).exists() for word in sent)


def test_anchors_of_a_file_do_not_hide_a_market() -> None:
    """Spot machines are spot, and the others are not: one has the other's settings by a YAML alias."""
    for cloud, market in (("aws", "InstanceMarketOptions"), ("gcp", "SPOT")):
        types = read(f"cluster/autoscaling-{cloud}.yaml")["available_node_types"]
        assert {name: market in yaml.safe_dump(kind) for name, kind in types.items()} == {
            "head": False,
            "gpu-on-demand": False,
            "gpu-spot": True,
        }
        assert types["gpu-spot"]["priority"] > types["gpu-on-demand"]["priority"]
        assert [name for name, kind in types.items() if "on_demand" in kind["resources"]] == ["gpu-on-demand"]


@pytest.mark.parametrize("cloud", ["aws", "gcp"])
def test_rays_autoscaler_takes_spot_machines_until_it_is_asked_for_others(cloud: str) -> None:
    from ray.autoscaler.v2.instance_manager.config import NodeTypeConfig
    from ray.autoscaler.v2.scheduler import ResourceDemandScheduler, SchedulingRequest
    from ray.autoscaler.v2.utils import ResourceRequestUtil
    from ray.core.generated.autoscaler_pb2 import ClusterResourceConstraint

    content = read(f"cluster/autoscaling-{cloud}.yaml")
    types = {
        name: NodeTypeConfig(
            name=name,
            min_worker_nodes=kind.get("min_workers", 0),
            max_worker_nodes=kind.get("max_workers", 0),
            priority=kind.get("priority", 0),
            resources=kind["resources"],
        )
        for name, kind in content["available_node_types"].items()
    }

    def launched(bundles: list[dict[str, int]]) -> dict[str, int]:
        asked = ClusterResourceConstraint(
            resource_requests=ResourceRequestUtil.group_by_count(
                [ResourceRequestUtil.make(bundle) for bundle in bundles]
            )
        )
        request = SchedulingRequest(
            disable_launch_config_check=True,
            node_type_configs=types,
            max_num_nodes=content["max_workers"],
            cluster_resource_constraints=[asked],
        )
        reply = ResourceDemandScheduler().schedule(request)
        return {one.instance_type: one.count for one in reply.to_launch}

    late = {"GPU": 1, cluster.ON_DEMAND: 1}
    assert launched([{"GPU": 1}] * 3) == {"gpu-spot": 3}
    assert launched([late] * 3) == {"gpu-on-demand": 3}
    assert launched([{"GPU": 1}] * 8) == {"gpu-spot": 8}
    assert launched([{"GPU": 1}] * 9) == {}  # all or nothing: what exceeds max_workers brings no machine at all
