"""Nothing that the user has set for other purposes reaches the platform, its parent included."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml
from sqlalchemy.engine import make_url

from embedded.environment import airflow_environment, base_environment, platform_environment, shell_lines
from embedded.settings import EmbeddedSettings
from sagemaker_local.protocol import SERVICES, service_model

ROOT = Path(__file__).resolve().parents[3]
CALL = """
import sys
from pathlib import Path
from embedded import environment
from embedded.settings import EmbeddedSettings
import requests, urllib.request
settings = EmbeddedSettings(run_dir=Path(sys.argv[1]), aws_port=int(sys.argv[2]))
environment.enter(settings)
environment.client(settings, "s3").head_object(Bucket="b", Key="k")
assert requests.get(settings.aws_url, timeout=5).status_code == 200
assert urllib.request.urlopen(settings.aws_url, timeout=5).status == 200
"""


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """A server that answers 200 to everything, as MiniStack's stand-in."""

    class Fine(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_HEAD = do_GET

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Fine)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()


@pytest.mark.parametrize(
    "caller",
    [
        {"HOME": "{home}", "AWS_PROFILE": "absent", "http_proxy": "http://127.0.0.1:9", "no_proxy": "corp.example"},
        {
            "AWS_CONFIG_FILE": "{config}",
            "HTTP_PROXY": "http://127.0.0.1:9",
            "ALL_PROXY": "http://127.0.0.1:9",
            "LANG": "C",
        },
    ],
    ids=["a home with a profile, lower case", "no home, a configuration file, upper case"],
)
def test_whatever_the_user_has_set_a_client_reaches_the_platform(caller: dict[str, str], port: int, tmp_path: Path):
    home = tmp_path / "home"
    (home / ".aws").mkdir(parents=True)
    (home / ".aws" / "config").write_text("[default]\nregion = moon-1\ns3 =\n    use_accelerate_endpoint = true\n")
    (home / ".aws" / "credentials").write_text("this is no INI file")
    environ = {"PATH": os.environ["PATH"]}
    environ |= {name: value.format(config=home / ".aws/config", home=home) for name, value in caller.items()}
    done = subprocess.run(
        [sys.executable, "-c", CALL, str(tmp_path / "a folder, ü"), str(port)],
        cwd=ROOT,
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_no_process_sees_the_users_aws_account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AWS_PROFILE", "production")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "real")
    settings = EmbeddedSettings(run_dir=tmp_path)
    for environment in (platform_environment(settings), airflow_environment(settings)):
        assert "AWS_PROFILE" not in environment
        assert "real" not in environment.values()
        assert environment["AWS_SHARED_CREDENTIALS_FILE"] == os.devnull


def test_proxies_stay_for_the_outside_and_both_spellings_spare_the_platform(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("https_proxy", "http://proxy.example")
    monkeypatch.setenv("no_proxy", "corp.example")
    monkeypatch.setenv("NO_PROXY", "other.example, corp.example")
    found = base_environment(EmbeddedSettings(run_dir=tmp_path, host="192.0.2.7"))
    assert found["https_proxy"] == "http://proxy.example"
    own = f"127.0.0.1,localhost,192.0.2.7,{socket.gethostname()}"
    assert found["no_proxy"] == f"corp.example,other.example,{own}"
    assert found["NO_PROXY"] == found["no_proxy"]


def test_airflow_reaches_the_platform_by_its_connection_alone(tmp_path: Path):
    environment = airflow_environment(EmbeddedSettings(run_dir=tmp_path))
    assert not [key for key in environment if key.startswith("AWS_ENDPOINT_URL")]
    assert "http://127.0.0.1:4580" in environment["AIRFLOW_CONN_AWS_DEFAULT"]


def test_a_path_may_hold_any_letter(tmp_path: Path):
    settings = EmbeddedSettings(run_dir=tmp_path / "a folder ü %41 #x ?q")
    url = make_url(airflow_environment(settings)["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"])
    assert url.database == str(settings.airflow_home / "airflow.db")
    assert url.query["timeout"] == "60"


def test_scones_host_opens_airflow_alone(tmp_path: Path):
    settings = EmbeddedSettings(run_dir=tmp_path, host="192.0.2.7", password="of my own")
    assert (settings.aws_url, settings.sagemaker_url) == ("http://127.0.0.1:4566", "http://127.0.0.1:4580")
    assert airflow_environment(settings)["AIRFLOW__API__HOST"] == "192.0.2.7"


def test_every_service_that_sagemaker_local_answers_for_is_sent_there():
    settings = EmbeddedSettings()
    # As botocore spells them.
    names = [service_model(one).service_id for one in (*SERVICES.values(), "sagemaker-runtime")]
    wanted = {f"AWS_ENDPOINT_URL_{name.upper().replace(' ', '_')}" for name in names}
    sent = {name for name, url in platform_environment(settings).items() if url == settings.sagemaker_url}
    compose = yaml.safe_load((ROOT / "docker-compose.yaml").read_text())["x-aws-env"]
    assert sent == {name for name, url in compose.items() if url == "http://sagemaker-local:4580"} == wanted


def test_a_shell_gets_what_the_platform_has(tmp_path: Path):
    """What `make aws-env` prints, run by a shell that had something else."""
    settings = replace(EmbeddedSettings(), run_dir=tmp_path, aws_secret_key="it's mine; $HOME", stack_name="buns")
    script = "\n".join([*shell_lines(settings), "env -0"])
    before = {"PATH": os.environ["PATH"], "AWS_PROFILE": "production", "AWS_SESSION_TOKEN": "x"}
    shown = subprocess.run(["sh", "-c", script], env=before, capture_output=True, text=True, check=True).stdout
    after = dict(line.split("=", 1) for line in shown.split("\0") if "=" in line)
    assert after["AWS_SECRET_ACCESS_KEY"] == "it's mine; $HOME"
    assert after["AWS_ENDPOINT_URL"] == "http://127.0.0.1:4566"
    assert after["AWS_ENDPOINT_URL_SAGEMAKER"] == "http://127.0.0.1:4580"
    assert after["SCONES_STACK_NAME"] == "buns"
    assert "CIFAR100_ARCHIVE" not in after
    assert "AWS_PROFILE" not in after
    assert "AWS_SESSION_TOKEN" not in after
