"""The container files of examples/container: what they run exists. They are not built here."""

import json
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from pixelclip_sdk.cli.main import parser

pytest.importorskip("fastapi", reason="the extra serve is not installed")

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "examples" / "container"
FILES = ["Dockerfile", "Dockerfile.cuda"]


def instructions(name: str) -> list[tuple[str, str]]:
    """(instruction, rest) of a Dockerfile; continued lines are joined."""
    text = re.sub(r"^#.*\n", "", (FOLDER / name).read_text(), flags=re.M)
    lines = [line for line in re.sub(r"\\\n\s*", "", text).splitlines() if line.strip()]
    return [(line.partition(" ")[0], line.partition(" ")[2]) for line in lines]


def options(command: list[str]):
    assert command[0] == "pixelclip"
    return parser().parse_args(command[1:])


@pytest.mark.parametrize("name", FILES)
def test_the_command_is_one_of_the_command_line(name):
    (entry,) = [json.loads(rest) for kind, rest in instructions(name) if kind == "ENTRYPOINT"]
    chosen = options([*entry, "--token-file", "/run/secrets/token"])
    (port,) = [rest for kind, rest in instructions(name) if kind == "EXPOSE"]
    assert (chosen.host, chosen.port) == ("0.0.0.0", int(port))


@pytest.mark.parametrize("name", FILES)
def test_what_is_copied_and_installed_exists(name):
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    found = instructions(name)
    assert dict(rest.split("=") for kind, rest in found if kind == "ARG")["EXTRAS"] in extras
    allowed = (FOLDER / f"{name}.dockerignore").read_text().splitlines()
    if not (ROOT / ".ci").is_dir():
        pytest.skip("this is no checkout")
    for kind, rest in found:
        if kind == "COPY" and "--from" not in rest:
            for source in rest.split()[:-1]:
                assert (ROOT / source).exists(), source
                assert f"!{source}" in allowed


@pytest.mark.parametrize("engine", ["", "cuda-"])
@pytest.mark.parametrize("extras", ["serve", "serve,video"])
def test_packages_come_by_their_hashes_and_are_the_tested_versions(extras, engine):
    if not (ROOT / ".ci").is_dir():
        pytest.skip("this is no checkout")
    text = (FOLDER / f"requirements-{engine}{extras}.txt").read_text()
    blocks = [block for block in re.split(r"^(?=[a-z])", text, flags=re.M) if block.strip()]
    versions = {}
    for block in blocks:
        name, version = re.match(r"([\w.-]+)==(\S+)", block).groups()
        assert "--hash=sha256:" in block, name
        versions[_normal(name)] = version
    tested = dict(line.split("==") for line in (ROOT / ".ci" / "constraints.txt").read_text().split())
    for name, version in tested.items():
        assert versions.get(_normal(name), version) == version, name
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"]]
    for extra in extras.split(","):
        wanted += project["optional-dependencies"][extra]
    if engine:
        assert "onnxruntime" not in versions
        assert "nvidia-cudnn-cu13" in versions
        wanted[wanted.index(next(one for one in wanted if one.startswith("onnxruntime")))] = "onnxruntime-gpu"
    for requirement in wanted:
        assert _normal(re.split(r"[<>=\[]", requirement)[0]) in versions, requirement


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.mark.parametrize("name", FILES)
def test_it_follows_the_usual_rules(name):
    found = instructions(name)
    kinds = [kind for kind, _ in found]
    images = [rest for kind, rest in found if kind == "ARG" and rest.startswith("PYTHON=")]
    assert all(re.fullmatch(r"PYTHON=python:\d+\.\d+-slim-\w+", image) for image in images)
    assert not {"ADD", "MAINTAINER", "SHELL"} & set(kinds)
    users = [rest for kind, rest in found if kind == "USER"]
    assert users == ["10001"]
    assert kinds.index("USER") > max(i for i, kind in enumerate(kinds) if kind in ("RUN", "COPY"))
    for kind, rest in found:
        if kind == "RUN":
            assert not re.search(r"\b(sudo|curl|wget|apt-get|chmod)\b", rest)
            assert "pip install" not in rest or "--no-cache-dir" in rest
    # What the build installs is not in the image but for the environment.
    assert kinds.count("FROM") == 2


@pytest.mark.parametrize("name", FILES)
def test_the_health_check_checks(server, name):
    (rest,) = [rest for kind, rest in instructions(name) if kind == "HEALTHCHECK"]
    command = json.loads(rest[rest.index("[") :])
    command[0] = sys.executable
    healthy = [part.replace(":8000", f":{server.port}") for part in command]
    assert subprocess.run(healthy, capture_output=True).returncode == 0
    ill = [part.replace(":8000", ":1") for part in command]
    assert subprocess.run(ill, capture_output=True).returncode != 0


def test_compose_and_prometheus_name_the_same_things():
    yaml = pytest.importorskip("yaml", reason="pyyaml is not installed")
    compose = yaml.safe_load((FOLDER / "compose.yaml").read_text())
    service, prometheus = compose["services"]["pixelclip"], compose["services"]["prometheus"]
    options(["pixelclip", "serve", *service["command"]])
    assert service["read_only"]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert (FOLDER / service["build"]["context"] / service["build"]["dockerfile"]).is_file()
    for file in (service, prometheus):
        assert file["secrets"] == ["token"]
    assert compose["secrets"]["token"]["file"] == "./token"
    config = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
    (job,) = config["scrape_configs"]
    assert job["static_configs"] == [{"targets": ["pixelclip:8000"]}]
    assert job["metrics_path"] == "/metrics"
    token = shlex.split(" ".join(service["command"]))[1]
    assert job["authorization"]["credentials_file"] == token
    assert ":latest" not in prometheus["image"]
    assert re.search(r":v\d+\.\d+\.\d+$", prometheus["image"])
