"""What a box keeps out, tried from inside. Skipped where the kernel gives none, which is itself tested."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from sagemaker_local import box as boxes
from sagemaker_local.box import Box, open_box, python_folders
from sagemaker_local.container import Container
from sagemaker_local.ended import wait_ended
from sagemaker_local.errors import ValidationException
from sagemaker_local.images import Images
from sagemaker_local.processes import Processes
from sagemaker_local.training.checks import check_request

HERE = "http://127.0.0.1:4566"


@pytest.fixture(scope="module")
def box() -> Iterator[Box]:
    made = open_box([HERE], "these tests")
    if made is None:
        pytest.skip("no user namespaces on this machine")
    yield made
    assert made.network
    made.network.close()


Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(box: Box, tmp_path: Path) -> Run:
    (tmp_path / "own").mkdir()

    def run(code: str) -> subprocess.CompletedProcess[str]:
        command = box.command(
            [sys.executable, "-c", code], cwd="/", readable=python_folders(), writable={"/tmp": tmp_path / "own"}
        )
        return subprocess.run(command, capture_output=True, text=True, check=False)

    return run


def test_files_of_the_machine_are_not_there(run: Run, tmp_path: Path) -> None:
    secret = tmp_path / "secrets.json"
    secret.write_text("{}")
    home = Path(os.path.expanduser("~"))
    # But for the way to the Python that runs, and to what it has installed.
    ways = [Path(sys.prefix), *python_folders().values()]
    hidden = [str(secret), "/etc/shadow", str(home / ".bashrc"), "/var", "/home", "/sys", "/boot"]
    hidden = [path for path in hidden if not any(way.is_relative_to(path) for way in ways)]
    seen = run(f"import os; print([path for path in {hidden} if os.path.exists(path)])")
    assert seen.stdout == "[]\n"
    # The Python that runs may itself lie below /tmp.
    temporary = run("import os; print(*os.listdir('/tmp'))").stdout.split()
    assert set(temporary) <= {folder.parts[2] for folder in python_folders().values() if folder.parts[1] == "tmp"}
    assert home.exists()
    listed = run(f"import os; print(*os.listdir({str(home)!r}) if os.path.isdir({str(home)!r}) else ())").stdout.split()
    assert set(listed) <= {way.relative_to(home).parts[0] for way in ways if way.is_relative_to(home)}


def test_only_what_is_meant_for_it_can_be_changed(run: Run, tmp_path: Path) -> None:
    tried = run(
        """
import os
for path in ("/new", "/usr/new", "/etc/new", "/tmp/new", "/proc/sys/kernel/printk_ratelimit", "/dev/new"):
    try:
        open(path, "w").write("x")
        print(path)
    except OSError:
        pass
"""
    )
    assert tried.stdout == "/tmp/new\n"
    assert (tmp_path / "own" / "new").read_text() == "x"


def test_other_processes_are_neither_seen_nor_reached(run: Run) -> None:
    seen = run("import os; print(sorted(int(name) for name in os.listdir('/proc') if name.isdigit()), os.getpid())")
    assert seen.stdout == "[1, 2] 2\n"
    assert "ProcessLookupError" in run(f"import os; os.kill({os.getpid()}, 0)").stderr


def test_it_has_no_rights_to_undo_its_box(run: Run) -> None:
    status = run("print(open('/proc/self/status').read())").stdout
    assert {line.split()[1] for line in status.splitlines() if line.startswith("Cap")} == {"0" * 16}
    assert "NoNewPrivs:\t1" in status
    undo = "import ctypes; print(ctypes.CDLL(None).mount(b'none', b'/usr', None, 32 | 4096, None))"
    assert run(undo).stdout == "-1\n"


def test_its_network_is_what_listens_in_it(run: Run, box: Box) -> None:
    assert box.network
    with socket.create_server(("127.0.0.1", 0)) as outside, box.network.listen(0) as inside:
        ports = [outside.getsockname()[1], inside.getsockname()[1]]
        tried = run(
            f"""
import socket
for address in [("127.0.0.1", {ports[0]}), ("127.0.0.1", {ports[1]}), ("192.0.2.1", 80)]:
    try:
        socket.create_connection(address, 5).close()
        print("connected")
    except OSError as error:
        print(type(error).__name__)
"""
        )
    assert tried.stdout.split() == ["ConnectionRefusedError", "connected", "OSError"]


def test_a_server_in_it_can_be_reached_by_who_made_it(box: Box, tmp_path: Path) -> None:
    processes = Processes(tmp_path, box)
    port = processes.free_port()
    code = f"""
import socket
server = socket.create_server(("127.0.0.1", {port}))
print("up", flush=True)
server.accept()[0].send(b"hi")
"""
    with subprocess.Popen(
        box.command([sys.executable, "-c", code], cwd="/", readable=python_folders()), stdout=subprocess.PIPE
    ) as server:
        assert server.stdout
        assert server.stdout.readline() == b"up\n"
        container = Container(server, tmp_path / "log", box.network)
        with container.connect(port) as connection:
            assert connection.recv(10) == b"hi"
    with pytest.raises(ConnectionRefusedError):
        container.connect(port)


@pytest.mark.parametrize(
    ("code", "ended"),
    [
        ("pass", 0),
        ("raise SystemExit(7)", 7),
        ("import os; os.kill(os.getpid(), 9)", -9),
        ("import os; os.abort()", -6),
    ],
)
def test_it_ends_as_its_command_ends(run: Run, code: str, ended: int) -> None:
    assert run(code).returncode == ended


def test_a_command_that_is_not_there_says_so(box: Box) -> None:
    done = subprocess.run(box.command(["/absent"], cwd="/"), capture_output=True, text=True, check=False)
    assert (done.returncode, "No such file" in done.stderr) == (127, True)


SLEEPER = """
import signal, subprocess, sys
signal.signal(signal.SIGTERM, lambda *_: (print("told", flush=True), sys.exit(3)))
subprocess.Popen(["sleep", "1000"])
print("up", flush=True)
signal.pause()
"""


@pytest.mark.parametrize(("number", "ended", "said"), [(signal.SIGTERM, 3, "told\n"), (signal.SIGKILL, -9, "")])
def test_signals_reach_it_and_nothing_is_left(
    box: Box, tmp_path: Path, number: signal.Signals, ended: int, said: str
) -> None:
    log = tmp_path / "log"
    container = Processes(tmp_path, box).spawn([sys.executable, "-uc", SLEEPER], env={}, cwd=tmp_path / "ml", log=log)
    while "up" not in log.read_text():
        assert container.exit_code() is None, log.read_text()
    keepers = psutil.Process(container.pid).children(recursive=True)
    assert len(keepers) == 3
    container.signal(number)
    assert container.wait(20) == ended
    assert log.read_text() == "up\n" + said
    assert wait_ended(keepers, timeout_s=20) == []


def test_a_container_has_opt_ml_and_a_tmp_of_its_own(box: Box, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN_OF_THE_USER", "x")
    processes = Processes(tmp_path, box)
    code = """
import os, pathlib
print(os.listdir("/opt/ml/input"), os.environ["HOME"], "GIVEN" in os.environ, "TOKEN_OF_THE_USER" in os.environ)
pathlib.Path("/opt/ml/model/m").write_text("m")
print(os.path.exists("/tmp/x"))
pathlib.Path("/tmp/x").write_text("x")
"""
    for name in ("one", "two"):
        root = tmp_path / name / "ml"
        (root / "input" / "data").mkdir(parents=True)
        (root / "model").mkdir()
        log = tmp_path / name / "log"
        container = processes.spawn([sys.executable, "-c", code], env={"GIVEN": "1"}, cwd=root, log=log)
        assert container.wait(30) == 0, log.read_text()
        assert log.read_text() == "['data'] /tmp True False\nFalse\n"
        assert (root / "model" / "m").read_text() == "m"


def test_without_it_there_is_one_loud_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    refuses = tmp_path / "inside.py"
    refuses.write_text("raise PermissionError('unshare: not allowed')")
    monkeypatch.setattr(boxes, "_LAUNCHER", [sys.executable, str(refuses)])
    assert open_box([HERE], "Jobs") is None
    (record,) = caplog.records
    assert "Jobs RUN WITHOUT A BOX" in record.getMessage()
    assert "unshare: not allowed" in record.getMessage()


def test_it_can_be_switched_off(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv(boxes.SWITCH, "off")
    assert open_box([HERE], "Jobs") is None
    assert "SCONES_BOX=off" in caplog.text


def test_a_platform_on_another_machine_needs_the_machines_network(box: Box) -> None:
    elsewhere = open_box(["http://ministack:4566"], "Jobs")
    assert elsewhere is not None
    assert elsewhere.network is None


def test_script_mode_without_it_is_refused_when_the_job_is_made(tmp_path: Path) -> None:
    context: Any = SimpleNamespace(processes=Processes(tmp_path))
    request = {
        "AlgorithmSpecification": {"TrainingImage": "*image-classification*", "TrainingInputMode": "File"},
        "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1},
        "OutputDataConfig": {"S3OutputPath": "s3://some-bucket/out"},
        "InputDataConfig": [{"ChannelName": "sm_drivers"}],
    }
    context.images = Images()
    with pytest.raises(ValidationException, match="SourceCode of the SageMaker SDK"):
        check_request(context, request)
