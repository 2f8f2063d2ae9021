"""Rules for the Dockerfile and the compose file: hadolint's that matter here, and the project's own."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
ONE_SHOT = {"airflow-init", "secrets"}
# Started by their images' own entry points as root, which then change to a user of their own.
FOREIGN = {"postgres", "redis"}
SECRET = re.compile(r"(?i)password|secret|token|fernet|credential|private")
DEFAULT = re.compile(r"\$\{\w+:-([^{}]*)\}")

Instruction = tuple[str, str]


def instructions(text: str) -> list[Instruction]:
    """The Dockerfile's instructions, comments dropped and continued lines joined."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    pairs = (line.split(None, 1) for line in joined.splitlines() if line.strip())
    return [(pair[0].upper(), pair[1] if len(pair) > 1 else "") for pair in pairs]


def stages(found: list[Instruction]) -> dict[str, list[Instruction]]:
    """Instructions by stage name; a stage without a name is left out."""
    result: dict[str, list[Instruction]] = {}
    current: list[Instruction] = []
    for name, value in found:
        if name == "FROM":
            current = result.setdefault(value.split(" AS ")[1].strip(), []) if " AS " in value else []
        current.append((name, value))
    return result


def arguments_of(found: list[Instruction]) -> dict[str, str]:
    return dict(value.partition("=")[::2] for name, value in found if name == "ARG")


def dockerfile_problems(text: str) -> list[str]:
    """What hadolint would say, by its rule numbers where there is one."""
    problems: list[str] = []
    found = instructions(text)
    arguments, named = arguments_of(found), set(stages(found))
    for name, value in found:
        if name == "FROM":
            image = value.split(" AS ")[0].strip()
            image = re.sub(r"\$\{(\w+)\}", lambda match: arguments.get(match[1], match[0]), image)
            if image not in named and not re.fullmatch(r"[\w./-]+:[\w.-]*\d[\w.-]*", image):
                problems.append(f"DL3006 {image}: no version in the tag")
            if image.endswith(":latest"):
                problems.append(f"DL3007 {image}")
        elif name == "ADD":
            problems.append(f"DL3020 use COPY: ADD {value}")
        elif name == "MAINTAINER":
            problems.append("DL4000 MAINTAINER is deprecated")
        elif name in {"ENV", "ARG"}:
            names = [word.partition("=")[0] for word in shlex.split(value)]
            problems += [f"a secret in {name}: {one}" for one in names if SECRET.search(one)]
        elif name in {"CMD", "ENTRYPOINT"} and not value.startswith("["):
            problems.append(f"DL3025 use the JSON form: {name} {value}")
        elif name == "WORKDIR" and not value.startswith(("/", "$")):
            problems.append(f"DL3000 WORKDIR {value} is not absolute")
        elif name == "COPY" and len(shlex.split(value)) > 2 and not value.rstrip().endswith("/"):
            sources = [word for word in shlex.split(value) if not word.startswith("--")]
            if len(sources) > 2:
                problems.append(f"DL3021 the target of several files must end in /: COPY {value}")
        elif name == "RUN":
            problems += run_problems(value)
    return problems


def run_problems(command: str) -> list[str]:
    """What is wrong with one RUN."""
    problems = []
    if re.search(r"\bsudo\b", command):
        problems.append("DL3004 sudo")
    if re.search(r"(^|[;&|]\s*)cd\s", command):
        problems.append("DL3003 use WORKDIR, not cd")
    if re.search(r"\bapt\b(?!-)", command):
        problems.append("DL3027 use apt-get")
    if "apt-get install" in command:
        if not re.search(r"rm -rf /var/lib/apt/lists", command):
            problems.append("DL3009 the lists of apt-get stay in the layer")
        if "--no-install-recommends" not in command:
            problems.append("DL3015 apt-get without --no-install-recommends")
        if not re.search(r"apt-get install.* (-y|--yes|-qy)\b", command):
            problems.append("DL3014 apt-get without --yes")
    if "apt-get" in command and "upgrade" in command:
        problems.append("DL3005 no apt-get upgrade: take a newer base image")
    if re.search(r"pip install", command) and "--require-hashes" not in command:
        problems.append(f"DL3013 packages that are not locked: {command[:80]}")
    if re.search(r"\b(curl|wget)\b", command):
        problems.append("a download without a checksum")
    if re.search(r"(?<!\|)\|(?!\|)", command) and "pipefail" not in command:
        problems.append("DL4006 a pipe without pipefail")
    return problems


@pytest.fixture(scope="module")
def dockerfile() -> str:
    return (ROOT / "Dockerfile").read_text()


@pytest.fixture(scope="module")
def services() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "docker-compose.yaml").read_text())["services"]
    return found


def test_the_dockerfile_keeps_the_rules(dockerfile: str):
    assert dockerfile_problems(dockerfile) == []


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("FROM python", "DL3006"),
        ("ARG BASE=python:latest\nFROM ${BASE}", "DL3007"),
        ("FROM a:1\nADD x /x", "DL3020"),
        ("FROM a:1\nENV API_TOKEN=x", "a secret in ENV"),
        ("FROM a:1\nARG DB_PASSWORD", "a secret in ARG"),
        ("FROM a:1\nCMD run it", "DL3025"),
        ("FROM a:1\nRUN pip install flask", "DL3013"),
        ("FROM a:1\nRUN apt-get update \\\n  && apt-get install -y git", "DL3009"),
        ("FROM a:1\nRUN cd /x && make", "DL3003"),
        ("FROM a:1\nRUN sudo make", "DL3004"),
        ("FROM a:1\nRUN cat x | sh", "DL4006"),
        ("FROM a:1\nWORKDIR opt", "DL3000"),
        ("FROM a:1\nCOPY a b /c", "DL3021"),
        ("FROM a:1\nRUN wget https://example.com/x", "a download"),
    ],
)
def test_each_rule_finds_what_it_is_for(text: str, rule: str):
    assert any(problem.startswith(rule) for problem in dockerfile_problems(text))


@pytest.mark.parametrize("target", ["airflow", "platform"])
def test_no_image_runs_as_root_or_holds_a_compiler(dockerfile: str, target: str):
    stage = stages(instructions(dockerfile))[target]
    users = [value for name, value in stage if name == "USER"]
    assert users
    assert users[-1] not in {"root", "0"}
    # Built on the plain base; packages come from the stage that installed them, not with it.
    assert stage[0] == ("FROM", f"base AS {target}")
    assert any(name == "COPY" and value.startswith("--from=") for name, value in stage)


def test_only_what_the_images_copy_is_sent_to_the_builder(dockerfile: str):
    ignore = (ROOT / ".dockerignore").read_text().splitlines()
    assert ignore[0] == "*", "everything is left out but what is named"
    allowed = [line[1:] for line in ignore if line.startswith("!")]
    for name, value in instructions(dockerfile):
        if name == "COPY" and "--from=" not in value:
            words = [word for word in shlex.split(value) if not word.startswith("--")]
            for source in words[:-1]:
                assert (ROOT / source).exists(), source
                assert any(Path(source).match(pattern) for pattern in allowed), f"{source} is in .dockerignore"
    assert not [line for line in allowed if ".env" in line or ".git" in line]


def test_every_service_is_watched_limited_and_started_again(services: dict[str, dict[str, Any]]):
    for name, service in services.items():
        assert service["deploy"]["resources"]["limits"]["memory"], name
        if name in ONE_SHOT:
            assert service["restart"] == "no"
            continue
        assert service["restart"] == "unless-stopped", name
        assert service["healthcheck"]["test"], name
        assert service["stop_grace_period"], name


def test_services_of_our_images_have_no_privileges(services: dict[str, dict[str, Any]]):
    for name, service in services.items():
        assert not service.get("privileged")
        assert "docker.sock" not in json.dumps(service.get("volumes", [])), name
        assert service.get("network_mode") is None, name
        if name not in FOREIGN:
            assert service["cap_drop"] == ["ALL"], name
            assert service["security_opt"] == ["no-new-privileges:true"], name
            assert service["init"] is True, name


def test_ports_are_on_loopback_and_only_airflow_can_be_opened(services: dict[str, dict[str, Any]]):
    published = {name: service["ports"] for name, service in services.items() if service.get("ports")}
    assert set(published) == {"airflow-api-server", "ministack", "sagemaker-local"}
    for name, ports in published.items():
        for port in ports:
            host = "${SCONES_HOST:-127.0.0.1}" if name == "airflow-api-server" else "127.0.0.1"
            assert port.startswith(f"{host}:"), f"{name}: {port}"


def test_code_is_mounted_read_only_and_data_is_in_named_volumes(services: dict[str, dict[str, Any]]):
    volumes = yaml.safe_load((ROOT / "docker-compose.yaml").read_text())["volumes"]
    used = set()
    for name, service in services.items():
        for volume in service.get("volumes", []):
            # The source may hold a colon itself: ${NAME:-default}.
            parts = re.sub(r"\$\{[^}]*\}", "folder", volume).split(":")
            if parts[0] in volumes:
                used.add(parts[0])
            else:
                assert parts[2:] == ["ro"], f"{name} may write to {volume}"
    assert used == set(volumes)


def test_images_are_pinned(services: dict[str, dict[str, Any]]):
    for name, service in services.items():
        image = DEFAULT.sub(r"\1", service["image"])
        assert re.fullmatch(r"[\w./-]+:[\w.-]+", image), f"{name}: {image}"
        assert not image.endswith(":latest"), name


def test_secrets_come_from_the_volume_of_secrets_alone(services: dict[str, dict[str, Any]]):
    """No value stands in a service's environment, where `docker inspect` and every child process could read it."""
    read: set[str] = set()
    for name, service in services.items():
        for variable, value in service.get("environment", {}).items():
            # "admin" is refused on anything but loopback.
            if not SECRET.search(variable) or variable == "SCONES_ADMIN_PASSWORD":
                continue
            if name == "secrets":
                assert value == f"${{{variable}:-}}", "what .env holds comes first"
                continue
            found = re.fullmatch(r"(?:cat )?/secrets/(\w+)", str(value))
            assert found, f"{name}: {variable}={value}"
            assert variable.endswith(("_CMD", "_FILE")), f"{name}: {variable} would hold the path, not the secret"
            read.add(found[1])
    assert {"airflow_fernet_key", "airflow_jwt_secret", "airflow_api_secret_key", "postgres_password"} <= read


def test_who_reads_secrets_mounts_them_read_only_and_waits_for_them(services: dict[str, dict[str, Any]]):
    for name, service in services.items():
        mounted = [volume for volume in service.get("volumes", []) if volume.startswith("secrets:")]
        assert mounted == (["secrets:/secrets"] if name == "secrets" else ["secrets:/secrets:ro"] if mounted else [])
        if "/secrets/" in json.dumps(service.get("environment", {})) and name != "secrets":
            assert mounted, name
            waits = service.get("depends_on", {})
            assert "secrets" in waits or "airflow-init" in waits or "postgres" in waits, name


def test_every_setting_of_the_compose_file_is_in_the_example(services: dict[str, dict[str, Any]]):
    text = (ROOT / "docker-compose.yaml").read_text()
    example = (ROOT / ".env.example").read_text()
    internal = {"AIRFLOW_CONN_AWS_DEFAULT", "COMPOSE_PROJECT_NAME"}  # the one connection; compose's own
    missing = {
        name
        for name in re.findall(r"\$\{(\w+)", text)
        if name not in internal and not re.search(rf"(?m)^#?{name}=", example)
    }
    assert not missing


def test_services_start_by_health_not_by_chance(services: dict[str, dict[str, Any]]):
    for name, service in services.items():
        for other, condition in service.get("depends_on", {}).items():
            wanted = "service_completed_successfully" if other in ONE_SHOT else "service_healthy"
            assert condition["condition"] == wanted, f"{name} needs {other}"
            # What a profile may leave out cannot be required.
            if "profiles" in services[other] and "profiles" not in service:
                assert condition["required"] is False
