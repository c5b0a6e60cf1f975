"""What cluster.yaml and clusters/ say, against Ray's own checks and what must never slip: bill, token, dashboard."""

import importlib.util
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import jsonschema
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]


LAUNCHED = ("cluster.yaml", "clusters/on_premise.yaml")


def _read(name):
    return yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def cluster():
    return _read("cluster.yaml")


@pytest.fixture(params=LAUNCHED)
def launched(request):
    return _read(request.param)


def _ray_file(name):
    """A file of the installed Ray, found without importing it."""
    [folder] = importlib.util.find_spec("ray").submodule_search_locations
    return Path(folder) / name


def _starts(commands):
    return [command for command in commands if "ray start" in command]


@pytest.mark.parametrize("name", LAUNCHED)
def test_a_launcher_file_fits_on_a_page(name):
    assert len((ROOT / name).read_text(encoding="utf-8").splitlines()) < 100


def test_ray_accepts_the_file(launched):
    schema = json.loads(_ray_file("autoscaler/ray-schema.json").read_text(encoding="utf-8"))
    accepts = jsonschema.validators.validator_for(schema)(schema).is_valid
    assert accepts(launched)
    assert not accepts({**launched, "max_workers": "four"})


@pytest.mark.parametrize("name", LAUNCHED)
def test_ray_prepares_the_file_as_it_would_for_ray_up(name):
    script = """
import json, sys, yaml
from ray.autoscaler._private.util import prepare_config, validate_config
prepared = prepare_config(yaml.safe_load(open(sys.argv[1])))
validate_config(prepared)
print(json.dumps(prepared))
"""
    called = [sys.executable, "-c", script, ROOT / name]
    finished = subprocess.run(called, cwd=ROOT, capture_output=True, text=True, timeout=180, check=False)
    assert finished.returncode == 0, finished.stderr
    prepared, given = json.loads(finished.stdout.splitlines()[-1]), _read(name)
    assert prepared["head_setup_commands"][: len(given["setup_commands"])] == given["setup_commands"]
    for commands in ("head_start_ray_commands", "worker_start_ray_commands"):
        assert prepared[commands] == given[commands]  # none of Ray's own, which open the dashboard to the network
    missing = {"initialization_commands", "cluster_synced_files", "upscaling_speed", "idle_timeout_minutes"} - {
        *prepared
    }
    assert missing == set()  # what Ray's launcher reads without asking whether it is there


def test_gpu_workers_scale_from_zero_and_have_an_end(cluster):
    gpu_groups = [kind for kind in cluster["available_node_types"].values() if kind["resources"].get("GPU")]
    assert gpu_groups
    assert all(group["min_workers"] == 0 and 0 < group["max_workers"] <= cluster["max_workers"] for group in gpu_groups)
    assert 0 < cluster["idle_timeout_minutes"] <= 15


def test_the_head_runs_no_trials_and_is_not_taken_away(cluster):
    head = cluster["available_node_types"][cluster["head_node_type"]]
    assert head["resources"] == {"CPU": 0}
    assert "InstanceMarketOptions" not in head["node_config"]


def test_spot_workers_are_asked_for_through_the_provider_that_can_do_without(cluster):
    groups = cluster["available_node_types"].values()
    assert any(group["node_config"].get("InstanceMarketOptions") == {"MarketType": "spot"} for group in groups)
    assert cluster["provider"]["type"] == "external"
    assert cluster["provider"]["module"] == "search.spot.SpotFirst"
    assert any("boto3" in command for command in cluster["head_setup_commands"])  # what it needs there


@pytest.mark.parametrize("role", ["head", "worker"])
def test_every_node_asks_for_the_token(launched, role):
    [start] = _starts(launched[f"{role}_start_ray_commands"])
    assert "RAY_AUTH_MODE=token ray start" in start


def test_the_token_reaches_every_node_and_is_closed_to_others(launched):
    assert launched["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    assert "chmod 600 ~/.ray/auth_token" in launched["setup_commands"]


def test_the_dashboard_is_not_open_to_the_network(launched):
    [start] = _starts(launched["head_start_ray_commands"])
    assert "--dashboard-host=127.0.0.1" in start
    assert "0.0.0.0" not in json.dumps(launched)


def test_the_image_has_the_locked_ray(cluster):
    locked = re.search(r"^ray==(.+)$", (ROOT / "requirements.lock").read_text(encoding="utf-8"), re.MULTILINE)[1]
    assert cluster["docker"]["image"].startswith(f"rayproject/ray:{locked}-py311")


def test_nodes_install_the_lock_from_files_that_are_sent_to_them(launched):
    assert any("--requirement ~/thawline/requirements.lock" in command for command in launched["setup_commands"])
    sent = {remote: local for remote, local in launched["file_mounts"].items() if remote.startswith("~/thawline/")}
    assert all((ROOT / local).exists() for local in sent.values())
    assert {remote.removeprefix("~/thawline/") for remote in sent} == set(sent.values())
    assert {"pyproject.toml", "requirements.lock", "search", "trainable", "analysis", "configs"} <= set(sent.values())


PYTHON = """#!/bin/bash
mkdir -p "$3/bin"
cat > "$3/bin/pip" << 'END'
#!/bin/bash
echo "$@" >> ~/asked
[[ $* != *--editable* ]] || touch ~/thawline/venv/bin/thawline
END
chmod +x "$3/bin/pip"
"""


def test_own_machines_are_set_up_once_and_a_second_time_for_nothing(tmp_path):
    (tmp_path / "commands").mkdir()
    for name, text in {"python3.11": PYTHON, "nvidia-smi": "#!/bin/true\n"}.items():
        (tmp_path / "commands" / name).write_text(text)
        (tmp_path / "commands" / name).chmod(0o755)
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").touch(0o644)
    given = _read("clusters/on_premise.yaml")
    environment = {"HOME": str(tmp_path), "PATH": f"{tmp_path}/commands:/usr/bin:/bin"}
    asked = []
    for _ in range(2):
        for command in given["setup_commands"] + given["worker_setup_commands"]:
            subprocess.run(["bash", "-c", command], env=environment, check=True, timeout=60)
        asked.append((tmp_path / "asked").read_text().splitlines())
        (tmp_path / "asked").unlink()
    installs = [[line.split()[-1].split("/")[-1] for line in lines] for lines in asked]
    assert installs[0] == ["requirements.lock", "thawline", "tensorflow[and-cuda]"]
    assert installs[1] == ["requirements.lock", "tensorflow[and-cuda]"]  # which are there: pip has nothing to do
    assert (tmp_path / ".ray" / "auth_token").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / ".bashrc").read_text().count("thawline/venv/bin") == 1


@pytest.mark.parametrize("role", ["head", "worker"])
def test_own_machines_are_known_by_the_address_that_ssh_came_to(role):
    [start] = _starts(_read("clusters/on_premise.yaml")[f"{role}_start_ray_commands"])
    [option] = re.findall(r"--node-ip-address=\S.*?\)", start)
    environment = {"SSH_CONNECTION": "10.0.0.9 51234 10.0.0.2 22"}
    said = subprocess.run(["bash", "-c", f"echo {option}"], env=environment, capture_output=True, text=True, check=True)
    assert said.stdout == "--node-ip-address=10.0.0.2\n"


# The fields of these parts that the operator knows (ray.io/v1, KubeRay 1.5.1 to 1.6) and that are used here, with their
# types: a misspelt one is refused here, as `kubectl apply` would. What Kubernetes itself says of pods is not in it
# beyond the fields used.
_TEXT, _COUNT, _YES = {"type": "string"}, {"type": "integer"}, {"type": "boolean"}


def _object(required=(), **properties):
    return {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}


def _list(of):
    return {"type": "array", "items": of, "minItems": 1}


_TEXTS = {"type": "object", "additionalProperties": _TEXT}
_RESOURCES = _object(["requests", "limits"], requests=_TEXTS, limits=_TEXTS)
_CONFINED = _object(allowPrivilegeEscalation=_YES, capabilities=_object(drop=_list(_TEXT)))
_CONTAINER = _object(
    ["name", "image", "resources", "securityContext"],
    name=_TEXT,
    image=_TEXT,
    command=_list(_TEXT),
    env=_list(_object(["name", "value"], name=_TEXT, value=_TEXT)),
    resources=_RESOURCES,
    securityContext=_CONFINED,
    volumeMounts=_list(_object(["name", "mountPath"], name=_TEXT, mountPath=_TEXT)),
)
_VOLUME = _object(
    ["name"],
    name=_TEXT,
    persistentVolumeClaim=_object(["claimName"], claimName=_TEXT),
    emptyDir=_object(medium={"enum": ["Memory", ""]}, sizeLimit=_TEXT),
)
_POD = _object(
    ["containers", "securityContext"],
    restartPolicy={"enum": ["Always", "Never", "OnFailure"]},
    automountServiceAccountToken=_YES,
    securityContext=_object(
        ["runAsNonRoot", "runAsUser"],
        runAsNonRoot=_YES,
        runAsUser=_COUNT,
        fsGroup=_COUNT,
        seccompProfile=_object(["type"], type={"enum": ["RuntimeDefault", "Localhost", "Unconfined"]}),
    ),
    tolerations=_list(_object(key=_TEXT, operator={"enum": ["Exists", "Equal"]}, effect=_TEXT)),
    containers=_list(_CONTAINER),
    volumes=_list(_VOLUME),
)
_TEMPLATE = _object(["spec"], spec=_POD)
_RAY_JOB = _object(
    ["entrypoint", "rayClusterSpec"],
    entrypoint=_TEXT,
    shutdownAfterJobFinishes=_YES,
    backoffLimit=_COUNT,
    rayClusterSpec=_object(
        ["headGroupSpec", "workerGroupSpecs", "rayVersion", "authOptions"],
        rayVersion=_TEXT,
        authOptions=_object(["mode"], mode={"enum": ["token", "disabled"]}),
        enableInTreeAutoscaling=_YES,
        autoscalerOptions=_object(
            version={"enum": ["v1", "v2"]},
            idleTimeoutSeconds=_COUNT,
            securityContext=_CONFINED,
            resources=_RESOURCES,
        ),
        headGroupSpec=_object(["rayStartParams", "template"], rayStartParams=_TEXTS, template=_TEMPLATE),
        workerGroupSpecs=_list(
            _object(
                ["groupName", "minReplicas", "maxReplicas", "rayStartParams", "template"],
                groupName=_TEXT,
                replicas=_COUNT,
                minReplicas=_COUNT,
                maxReplicas=_COUNT,
                rayStartParams=_TEXTS,
                template=_TEMPLATE,
            )
        ),
    ),
)


@pytest.fixture(scope="module")
def kubernetes():
    """What clusters/kuberay.yaml has of each kind."""
    text = (ROOT / "clusters/kuberay.yaml").read_text(encoding="utf-8")
    return {document["kind"]: document for document in yaml.safe_load_all(text)}


def _pods(kubernetes):
    spec = kubernetes["RayJob"]["spec"]["rayClusterSpec"]
    groups = [spec["headGroupSpec"], *spec["workerGroupSpecs"]]
    return [kubernetes["Pod"]["spec"], *(group["template"]["spec"] for group in groups)]


def test_kubernetes_knows_every_field_of_the_study_job(kubernetes):
    assert kubernetes["RayJob"]["apiVersion"] == "ray.io/v1"
    jsonschema.validate(kubernetes["RayJob"]["spec"], _RAY_JOB)
    jsonschema.validate(kubernetes["Pod"]["spec"], _POD)


def test_on_kubernetes_gpu_workers_scale_from_zero_and_have_an_end(kubernetes):
    spec = kubernetes["RayJob"]["spec"]
    [group] = spec["rayClusterSpec"]["workerGroupSpecs"]
    assert (group["replicas"], group["minReplicas"], group["maxReplicas"]) == (0, 0, 4)
    assert group["template"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert spec["rayClusterSpec"]["enableInTreeAutoscaling"]
    assert spec["shutdownAfterJobFinishes"]
    assert f"resources.concurrency={group['maxReplicas']}" in spec["entrypoint"]


def test_on_kubernetes_every_node_asks_for_the_token(kubernetes):
    assert kubernetes["RayJob"]["spec"]["rayClusterSpec"]["authOptions"] == {"mode": "token"}


def test_on_kubernetes_the_head_runs_no_trials_and_keeps_what_counts_in_the_claim(kubernetes):
    head = kubernetes["RayJob"]["spec"]["rayClusterSpec"]["headGroupSpec"]
    assert head["rayStartParams"]["num-cpus"] == "0"
    claim = kubernetes["PersistentVolumeClaim"]["metadata"]["name"]
    assert {"name": "data", "persistentVolumeClaim": {"claimName": claim}} in head["template"]["spec"]["volumes"]
    assert "storage=/data/" in kubernetes["RayJob"]["spec"]["entrypoint"]


def test_pods_ask_for_what_they_may_use_and_may_do_no_more_than_they_need(kubernetes):
    for pod in _pods(kubernetes):
        assert pod["securityContext"]["runAsNonRoot"]
        for container in pod["containers"]:
            assert container["resources"]["requests"] == container["resources"]["limits"]
            assert container["securityContext"]["allowPrivilegeEscalation"] is False
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
            mounted = {mount["name"] for mount in container["volumeMounts"]}
            assert mounted == {volume["name"] for volume in pod["volumes"]}


def test_the_object_store_fits_into_the_shared_memory_of_its_pod(kubernetes):
    spec = kubernetes["RayJob"]["spec"]["rayClusterSpec"]
    for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
        [shared] = [each for each in group["template"]["spec"]["volumes"] if each["name"] == "shared-memory"]
        assert shared["emptyDir"] == {"medium": "Memory", "sizeLimit": "1Gi"}
        assert int(group["rayStartParams"]["object-store-memory"]) < 2**30


def test_all_pods_run_this_version_in_an_image_with_the_locked_ray(kubernetes):
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    assert {container["image"] for pod in _pods(kubernetes) for container in pod["containers"]} == {
        f"thawline:{version}"
    }
    locked = re.search(r"^ray==(.+)$", (ROOT / "requirements.lock").read_text(encoding="utf-8"), re.MULTILINE)[1]
    assert kubernetes["RayJob"]["spec"]["rayClusterSpec"]["rayVersion"] == locked
    recipe = (ROOT / "clusters/Dockerfile").read_text(encoding="utf-8")
    assert f"FROM rayproject/ray:{locked}-py311-cpu\n" in recipe
    assert f"--tag thawline:{version} ." in recipe
    for copied in re.findall(r"^COPY --chown=ray:users (.+) \S+$", recipe, re.MULTILINE):
        assert all((ROOT / name).exists() for name in copied.split())
