"""The files in `deploy/` against the documented schemas, our own options, and what they must agree on."""

import copy
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import jsonschema
import kubernetes_validate
import pytest
import yaml
from referencing import Registry, Resource
from typer.main import get_command

import cli
from pipelines.job import GRACE_SECONDS
from tests.conftest import write_picture
from tests.processes import finish

ROOT = Path(__file__).resolve().parents[1]
DEPLOY = ROOT / "deploy"
GUIDE = ROOT / "docs" / "cluster.md"
KUBERNETES = ["1.31", "1.37"]  # the oldest whose podFailurePolicy is stable, and the newest that the package knows
SCHEMAS = {path.stem: json.loads(path.read_text()) for path in sorted((ROOT / "tests" / "deploy_schemas").glob("*"))}
REGISTRY = Registry().with_resources((schema["$id"], Resource.from_contents(schema)) for schema in SCHEMAS.values())


class _Strict(yaml.SafeLoader):
    """As the API server reads: a key given twice is an error."""

    def construct_mapping(self, node, deep=False):
        keys = [key.value for key, _ in node.value]
        assert len(keys) == len(set(keys)), f"a key twice: {sorted(keys)}{node.start_mark}"
        return super().construct_mapping(node, deep)


def _documents(name):
    return list(yaml.load_all((DEPLOY / name).read_text(), _Strict))


FILES = {path.name: _documents(path.name) for path in sorted(DEPLOY.glob("*.yaml"))}
DOCUMENTS = [
    pytest.param(document, id=f"{name}:{document['kind']}") for name, found in FILES.items() for document in found
]


def _one(kind):
    [document] = [one for found in FILES.values() for one in found if one["kind"] == kind]
    return document


def _pod_templates(document):
    """The Ray groups' templates, by name; core kinds hold theirs inside their own schema."""
    spec = document["spec"]["rayClusterSpec"]
    groups = {"head": spec["headGroupSpec"], **{group["groupName"]: group for group in spec["workerGroupSpecs"]}}
    return {name: group["template"] for name, group in groups.items()}


def _check(document, version):
    if not document["apiVersion"].startswith("ray.io/"):
        kubernetes_validate.validate(document, version, strict=True)
        return
    schema = SCHEMAS[document["kind"].lower()]
    jsonschema.Draft202012Validator(schema, registry=REGISTRY).validate(document)
    for name, template in _pod_templates(document).items():
        wrapped = {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": name}, "template": template}
        kubernetes_validate.validate(wrapped, version, strict=True)


def _leaves(node, path=()):
    if isinstance(node, dict | list):
        for key, value in node.items() if isinstance(node, dict) else enumerate(node):
            yield from _leaves(value, (*path, key))
    else:
        yield path, node


@pytest.mark.parametrize("version", KUBERNETES)
@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_document_is_as_the_api_wants_it(document, version):
    _check(document, version)


@pytest.mark.parametrize("schema", SCHEMAS.values(), ids=SCHEMAS)
def test_our_schemas_are_schemas(schema):
    jsonschema.Draft202012Validator.check_schema(schema)


@pytest.mark.parametrize(
    ("kind", "path", "value"),
    [
        ("RayJob", ("spec", "backOffLimit"), 2),
        ("RayJob", ("spec", "backoffLimit"), "2"),
        ("RayJob", ("spec", "submissionMode"), "HttpMode"),
        ("RayJob", ("spec", "shutdownAfterJobFinishes"), False),
        ("RayJob", ("spec", "rayClusterSpec", "authOptions", "enabled"), True),
        ("RayJob", ("spec", "rayClusterSpec", "headGroupSpec", "rayStartParams", "num-cpus"), 0),
        ("RayJob", ("spec", "rayClusterSpec", "headGroupSpec", "template", "spec", "terminationGracePeriod"), 120),
        ("CronJob", ("spec", "jobTemplate", "spec", "podFailurePolicy", "rules", 0, "onExitCodes", "codes"), [2]),
    ],
)
def test_a_wrong_field_is_refused(kind, path, value):
    document = copy.deepcopy(_one(kind))
    *parents, last = path
    node = document
    for parent in parents:
        node = node[parent]
    node[last] = value
    with pytest.raises(jsonschema.ValidationError):
        _check(document, KUBERNETES[-1])


def test_every_wait_is_longer_than_the_grace():
    document = _one("RayJob")
    spec = document["spec"]
    words = shlex.split(spec["entrypoint"])
    grace = int(words[words.index("--grace") + 1])
    variables = yaml.load(spec["runtimeEnvYAML"], _Strict)["env_vars"]
    assert variables["RAY_JOB_STOP_WAIT_TIME_S"] == str(grace + 10)
    templates = _pod_templates(document)
    for template in templates.values():
        assert template["spec"]["terminationGracePeriodSeconds"] >= grace + 30
    assert "pkill -TERM" in templates["head"]["spec"]["containers"][0]["lifecycle"]["preStop"]["exec"]["command"][-1]
    [worker] = templates["gpu"]["spec"]["containers"]
    assert {"name": "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S", "value": str(grace + 10)} in worker["env"]
    assert worker["resources"]["limits"]["nvidia.com/gpu"] == 1


@pytest.mark.parametrize(
    ("entrypoint", "matches"),
    [
        ("/usr/local/bin/python3.11 /usr/local/bin/diffcolor-batch submit s3://a/b --output s3://a/c", True),
        ("python -m pipelines.commands.run_request request.json", True),
        ("/bin/sh -c diffcolor-batch submit s3://a/b", False),
        ("/bin/bash -c driver='^[^ ]*python[^ ]* .*(diffcolor-batch submit|-m pipelines.commands.run_request)'", False),
        ("python -m cli status s3://a/c", False),
        ("/usr/bin/python3 /usr/local/bin/diffcolor-batch status s3://a/c", False),
        ("ray::JobSupervisor", False),
    ],
)
def test_the_hook_finds_the_driver_and_nothing_else(entrypoint, matches):
    """Ending the shell around the driver instead would make Ray kill the driver."""
    head = _pod_templates(_one("RayJob"))["head"]["spec"]["containers"][0]
    [pattern] = re.findall(r"driver='(.*)'", head["lifecycle"]["preStop"]["exec"]["command"][-1])
    assert bool(re.search(pattern, entrypoint)) == matches


def test_every_file_brings_the_same_service_account():
    accounts = [one for found in FILES.values() for one in found if one["kind"] == "ServiceAccount"]
    assert len(accounts) == len(FILES)
    assert all(account == accounts[0] for account in accounts)
    used = [value for found in FILES.values() for path, value in _leaves(found) if path[-1] == "serviceAccountName"]
    assert set(used) == {accounts[0]["metadata"]["name"]}


def test_the_cron_job_gives_up_only_where_a_new_try_is_no_use():
    job = _one("CronJob")["spec"]["jobTemplate"]["spec"]
    pod = job["template"]["spec"]
    [at_once] = [rule for rule in job["podFailurePolicy"]["rules"] if rule["action"] == "FailJob"]
    assert at_once["onExitCodes"]["containerName"] == pod["containers"][0]["name"]
    assert at_once["onExitCodes"]["operator"] == "In"
    assert at_once["onExitCodes"]["values"] == [2, 3, 7]
    assert job["backoffLimit"] > 0
    assert pod["restartPolicy"] == "Never"
    assert _one("CronJob")["spec"]["concurrencyPolicy"] == "Forbid"


def test_the_image_has_the_ray_that_the_cluster_is_told():
    [ray] = re.findall(r"^ray==(.*)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert _one("RayJob")["spec"]["rayClusterSpec"]["rayVersion"] == ray
    images = {value for found in FILES.values() for path, value in _leaves(found) if path[-1] == "image"}
    [image] = images
    dockerfile = (DEPLOY / "Dockerfile").read_text()
    assert image in dockerfile
    [uid] = re.findall(r"^USER (\d+)$", dockerfile, re.MULTILINE)
    users = {value for found in FILES.values() for path, value in _leaves(found) if path[-1] == "runAsUser"}
    assert users == {int(uid)}
    for sources in re.findall(r"^COPY (.*) \S+$", dockerfile, re.MULTILINE):
        assert all((ROOT / source).exists() for source in sources.split())


_LOOKS_SECRET = re.compile(
    r"AKIA[0-9A-Z]{16}|-----BEGIN|eyJ[\w-]{20,}|(hf|ghp|glpat)[_-]\w{20,}|\b[0-9a-fA-F]{32,}\b|[A-Za-z0-9+/=]{40,}"
)
_NAMES_SECRET = re.compile(r"secret|token|passw|credential|access_?key|private_?key|api_?key", re.IGNORECASE)


@pytest.mark.parametrize(
    "path", sorted([*(path for path in DEPLOY.rglob("*") if path.is_file()), GUIDE]), ids=lambda path: path.name
)
def test_nothing_looks_like_a_secret(path):
    assert not _LOOKS_SECRET.search(path.read_text())
    for document in FILES.get(path.name, []):
        for keys, value in _leaves(document):
            # A reference to a Secret has a name and a key; only a value would be the secret itself.
            named = [key for key in keys if _NAMES_SECRET.search(str(key)) and key != "secretKeyRef"]
            assert not named or isinstance(value, bool), keys
            if keys[-1] == "name" and _NAMES_SECRET.search(str(value)):
                holder = document
                for key in keys[:-1]:
                    holder = holder[key]
                assert "value" not in holder, keys
            if keys[-1] == "runtimeEnvYAML":
                variables = yaml.load(value, _Strict)["env_vars"]
                assert not [name for name in variables if _NAMES_SECRET.search(name)]
                assert all(isinstance(text, str) for text in variables.values())


def _yaml_command_lines(node):
    if isinstance(node, dict):
        if isinstance(node.get("command"), list):
            yield [*node["command"], *node.get("args", [])]
        for value in node.values():
            yield from _yaml_command_lines(value)
    elif isinstance(node, list):
        for value in node:
            yield from _yaml_command_lines(value)
    elif isinstance(node, str) and node.startswith("diffcolor-batch "):
        yield shlex.split(node)


def _guide_command_lines():
    text = GUIDE.read_text()
    blocks = re.findall(r"^```console\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    lines = [line[2:] for block in blocks for line in block.replace("\\\n", "").splitlines() if line.startswith("$ ")]
    prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    return [shlex.split(line) for line in [*lines, *re.findall(r"`(diffcolor-batch [^`]+)`", prose)]]


def _command_lines():
    found = [(name, words) for name, documents in FILES.items() for words in _yaml_command_lines(documents)]
    found += [(GUIDE.name, words) for words in _guide_command_lines()]
    return sorted({(name, *words[1:]) for name, words in found if words[0] == "diffcolor-batch"})


def test_command_lines_were_found():
    found = _command_lines()
    assert {name for name, *_ in found} == {*FILES, GUIDE.name}
    assert {words[0] for name, *words in found if name == GUIDE.name} >= {"submit", "status", "logs", "list", "stop"}


@pytest.mark.parametrize("found", _command_lines(), ids=lambda found: " ".join(found)[:80])
def test_every_command_line_is_one_the_program_takes(found):
    """Parsed by the program's own parser: unknown commands, options and values, and missing arguments, fail here."""
    command, arguments = get_command(cli.app), list(found[1:])
    while hasattr(command, "commands"):
        name = arguments.pop(0)
        assert name in command.commands, f"there is no command {name}"
        command = command.commands[name]
    command.make_context(name, arguments)


# Without a cluster ---------------------------------------------------------------------------------------------------

FOLDER_SH = DEPLOY / "folder.sh"
UNITS = sorted((DEPLOY / "systemd").iterdir())


def test_the_script_has_nothing_that_shellcheck_minds():
    subprocess.run([Path(sys.executable).with_name("shellcheck"), FOLDER_SH], check=True)


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="needs systemd-analyze")
def test_the_units_are_as_systemd_wants_them(tmp_path):
    for unit in UNITS:
        text = unit.read_text().replace("/opt/diffcolor-batch/folder.sh", str(FOLDER_SH))
        (tmp_path / unit.name).write_text(text)
    checked = subprocess.run(
        ["systemd-analyze", "verify", *(tmp_path / unit.name for unit in UNITS)], capture_output=True, text=True
    )
    assert (checked.returncode, checked.stderr) == (0, "")


def test_systemd_waits_longer_than_the_grace():
    service = (DEPLOY / "systemd" / "diffcolor-batch.service").read_text()
    assert int(re.search(r"^TimeoutStopSec=(\d+)$", service, re.MULTILINE)[1]) > GRACE_SECONDS


def test_a_folder_is_colorized_and_the_next_night_only_what_is_new(tmp_path, processes):
    """The script as cron runs it."""
    scans, out = tmp_path / "scans", tmp_path / "out"
    scans.mkdir()
    settings = 'base-model = "none"\nworkers = 1\ndefault-caption = "a photograph"\n'
    (tmp_path / "settings.toml").write_text(f"[submit]\n{settings}")
    environment = {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    for night in range(3):
        write_picture(scans / f"{night}.png", night)
        (scans / "captions.csv").write_text("file,caption\n0.png,a barn\n")
        finish(processes.start([FOLDER_SH, scans, out, tmp_path / "settings.toml"], environment), 0)
        assert len(list((out / "images").iterdir())) == night + 1
