"""`train` and `serve` as SageMaker starts them: processes, files, signals and HTTP, on a small drawn data set."""

import http.client
import io
import json
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from sagemaker_local.algorithms.image_classification import train

MODULE = "sagemaker_local.algorithms.image_classification"
HEIGHT, WIDTH = 40, 48
CLASSES = 3
LINE = re.compile(r"^\[\d\d/\d\d/\d{4} \d\d:\d\d:\d\d (INFO|WARNING|ERROR) \d+\] (.*)$")


def draw(label: int, generator: np.random.Generator) -> bytes:
    """A disc, a box or a cross, 48 x 40 pixels, on a noisy ground."""
    ground = generator.integers(60, 130, (HEIGHT, WIDTH, 3)).astype(np.uint8)
    image = Image.fromarray(ground)
    pen = ImageDraw.Draw(image)
    x, y, r = int(generator.integers(16, 32)), int(generator.integers(14, 26)), int(generator.integers(8, 12))
    colour = tuple(int(value) for value in generator.integers(140, 255, 3))
    if label == 0:
        pen.ellipse((x - r, y - r, x + r, y + r), outline=colour, width=3)
    elif label == 1:
        pen.rectangle((x - r, y - r, x + r, y + r), outline=colour, width=3)
    else:
        pen.line((x - r, y - r, x + r, y + r), fill=colour, width=3)
        pen.line((x - r, y + r, x + r, y - r), fill=colour, width=3)
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def configure(root: Path, channels: dict[str, str], **hyperparameters: str) -> None:
    folder = root / "input" / "config"
    folder.mkdir(parents=True, exist_ok=True)
    values = {
        "num_classes": str(CLASSES), "num_training_samples": "90", "image_shape": f"3,{HEIGHT},{WIDTH}", "epochs": "2",
        **hyperparameters,
    }  # fmt: skip
    (folder / "hyperparameters.json").write_text(json.dumps(values))
    settings = {name: {"ContentType": kind, "TrainingInputMode": "File"} for name, kind in channels.items()}
    (folder / "inputdataconfig.json").write_text(json.dumps(settings))
    (folder / "resourceconfig.json").write_text(json.dumps({"current_host": "algo-1", "hosts": ["algo-1"]}))


def write_images(root: Path, counts: dict[str, int]) -> dict[str, str]:
    generator = np.random.default_rng(0)
    channels: dict[str, str] = {}
    for name, count in counts.items():
        folder, listing = root / "input" / "data" / name, root / "input" / "data" / f"{name}_lst"
        folder.mkdir(parents=True)
        listing.mkdir(parents=True)
        rows = []
        for number in range(count):
            (folder / f"{number}.png").write_bytes(draw(number % CLASSES, generator))
            rows.append(f"{number}\t{number % CLASSES}\t{number}.png\n")
        (listing / f"{name}.lst").write_text("".join(rows))
        channels |= {name: "application/x-image", f"{name}_lst": "application/x-image"}
    return channels


def run_train(root: Path, blas_threads: int = 1) -> subprocess.CompletedProcess[str]:
    threads = {name: str(blas_threads) for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    environment = {**os.environ, **threads, "SM_ML_ROOT": str(root), "TRAINING_JOB_NAME": "job"}
    command = [sys.executable, "-m", MODULE, "train"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A finished training job: its root and its log."""
    root = tmp_path_factory.mktemp("ml")
    channels = write_images(root, {"train": 90, "validation": 30})
    configure(root, channels, num_layers="18", top_k="2", use_pretrained_model="1")
    done = run_train(root)
    assert done.returncode == 0, done.stdout + done.stderr
    return root, done.stdout


def test_the_log_is_the_built_in_ones(job: tuple[Path, str]) -> None:
    lines = [LINE.match(line) for line in job[1].splitlines()]
    assert all(lines), job[1]
    said = [line[2] for line in lines if line]
    for epoch in range(2):
        for pattern in (
            rf"Epoch\[{epoch}\] Train-accuracy=[01]\.\d{{6}}",
            rf"Epoch\[{epoch}\] Train-top_k_accuracy_2=[01]\.\d{{6}}",
            rf"Epoch\[{epoch}\] Time cost=\d+\.\d{{3}}",
            rf"Epoch\[{epoch}\] Validation-accuracy=[01]\.\d{{6}}",
        ):
            assert len([line for line in said if re.fullmatch(pattern, line)]) == 1, pattern
    stored = [re.fullmatch(r"Storing the best model with validation accuracy: ([01]\.\d{6})", line) for line in said]
    assert float([line for line in stored if line][-1][1]) >= 0.8
    assert any(line.startswith("Hyperparameter num_layers has no effect here") for line in said)
    assert "Pretrained network: efficientnet-lite0, which sees the images at 128 x 128" in said


def test_the_artifact_and_its_report(job: tuple[Path, str]) -> None:
    model = job[0] / "model"
    assert sorted(path.name for path in model.iterdir()) == [
        "image-classification-parameters.npz", "model-shapes.json", "training-report.json",
    ]  # fmt: skip
    assert not (job[0] / "output" / "failure").exists()
    report = json.loads((model / "training-report.json").read_text())
    assert report["training_images"] == [30, 30, 30]
    assert report["metrics"]["validation:accuracy"] >= 0.8
    assert [entry["epoch"] for entry in report["epochs"]] == [0, 1]
    assert sum(row["images"] for row in report["calibration"]["cross_validation"]) == 90
    assert set(report["without_effect"]) == {"num_layers"}
    assert set(report["ridge_strengths"]) == {"linear", "network"}
    assert json.loads((model / "model-shapes.json").read_text())["network"]["name"] == report["network"]
    assert sum(path.stat().st_size for path in model.iterdir()) < 200_000  # it names the network and holds none


def test_the_same_job_again_writes_the_same_bytes(job: tuple[Path, str], tmp_path: Path) -> None:
    (tmp_path / "input").symlink_to(job[0] / "input")
    done = run_train(tmp_path, blas_threads=2)
    assert done.returncode == 0, done.stdout + done.stderr
    for name in ("image-classification-parameters.npz", "model-shapes.json"):
        assert (tmp_path / "model" / name).read_bytes() == (job[0] / "model" / name).read_bytes(), name


@pytest.fixture(scope="module")
def server(job: tuple[Path, str]) -> Iterator[tuple[int, "subprocess.Popen[str]"]]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {**os.environ, "SM_ML_ROOT": str(job[0]), "SAGEMAKER_BIND_TO_PORT": str(port)}
    process = subprocess.Popen(
        [sys.executable, "-m", MODULE, "serve"], env=environment, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == f"Serving 3 classes on port {port}\n"
        yield port, process
    finally:
        process.kill()
        process.communicate()


def ask(
    port: int, body: bytes | None, content_type: str = "image/png", accept: str = "", path: str = "/invocations",
    method: str = "POST",
) -> tuple[int, str, bytes]:  # fmt: skip
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    headers = {"Content-Type": content_type} | ({"Accept": accept} if accept else {})
    connection.request(method, path, body, headers)
    answer = connection.getresponse()
    result = answer.status, answer.getheader("content-type", ""), answer.read()
    connection.close()
    return result


def test_ping_and_execution_parameters(server: tuple[int, "subprocess.Popen[str]"]) -> None:
    assert ask(server[0], None, path="/ping", method="GET")[0] == 200
    status, kind, body = ask(server[0], None, path="/execution-parameters", method="GET")
    assert (status, kind) == (200, "application/json")
    assert json.loads(body)["BatchStrategy"] == "SINGLE_RECORD"


@pytest.mark.parametrize("content_type", ["image/png", "application/x-image", "image/png; charset=binary"])
@pytest.mark.parametrize("accept", ["", "application/json", "*/*", "text/html, */*;q=0.1"])
def test_an_image_is_answered_with_probabilities(
    server: tuple[int, "subprocess.Popen[str]"], content_type: str, accept: str
) -> None:
    status, kind, body = ask(server[0], draw(1, np.random.default_rng(77)), content_type, accept)
    assert (status, kind) == (200, "application/json")
    probabilities = json.loads(body)
    assert len(probabilities) == CLASSES
    assert sum(probabilities) == pytest.approx(1)


def test_new_images_are_classified(server: tuple[int, "subprocess.Popen[str]"]) -> None:
    generator = np.random.default_rng(99)
    labels = np.arange(30) % CLASSES
    answers = [json.loads(ask(server[0], draw(int(label), generator))[2]) for label in labels]
    assert (np.argmax(answers, axis=1) == labels).mean() >= 0.8


def test_jsonlines_for_batch_transform(server: tuple[int, "subprocess.Popen[str]"]) -> None:
    jpeg = io.BytesIO()
    Image.open(io.BytesIO(draw(0, np.random.default_rng(5)))).save(jpeg, "JPEG")
    status, kind, body = ask(server[0], jpeg.getvalue(), "image/jpeg", "application/jsonlines")
    assert (status, kind) == (200, "application/jsonlines")
    assert body.endswith(b"\n")
    assert len(json.loads(body)["prediction"]) == CLASSES


@pytest.mark.parametrize(
    ("request_", "status", "said"),
    [
        ({"body": b"not an image"}, 400, "the request body is not a PNG or JPEG image"),
        ({"body": b""}, 400, "the request body is empty"),
        ({"body": draw(0, np.random.default_rng(0))[:200]}, 400, "the request body is truncated or corrupt"),
        ({"body": b"1,2", "content_type": "text/csv"}, 415, "content type 'text/csv' is not supported"),
        ({"body": b"x", "accept": "text/html"}, 406, "answers are application/json or application/jsonlines"),
        ({"body": None, "method": "GET"}, 405, "use POST"),
        ({"body": b"x", "path": "/ping"}, 405, "use GET"),
        ({"body": None, "path": "/other", "method": "GET"}, 404, "no such path: /other"),
        ({"body": bytes(21 * 1024 * 1024)}, 413, "the body has more than"),
    ],
)
def test_a_bad_request_is_refused_and_the_server_lives(
    server: tuple[int, "subprocess.Popen[str]"], request_: dict[str, object], status: int, said: str
) -> None:
    try:
        answer = ask(server[0], **request_)  # type: ignore[arg-type]
    except ConnectionError:  # the server closed while the oversized body was still being sent
        assert status == 413
    else:
        assert answer[0] == status
        assert said in json.loads(answer[2])["error"]
    assert ask(server[0], None, path="/ping", method="GET")[0] == 200


def test_several_requests_on_one_connection(server: tuple[int, "subprocess.Popen[str]"]) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server[0], timeout=20)
    for _ in range(3):
        connection.request("POST", "/invocations", draw(2, np.random.default_rng(1)), {"Content-Type": "image/png"})
        assert len(json.loads(connection.getresponse().read())) == CLASSES
    connection.close()


def test_bytes_that_are_not_http_are_answered_and_closed(server: tuple[int, "subprocess.Popen[str]"]) -> None:
    with socket.create_connection(("127.0.0.1", server[0]), timeout=20) as client:
        client.sendall(b"\x16\x03\x01 this is no HTTP\r\n\r\n")
        assert client.recv(1000).startswith(b"HTTP/1.1 400 ")


def test_serving_imports_nothing_heavy() -> None:
    code = f"import sys, {MODULE}.serve; print(' '.join(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"sklearn", "skimage", "pandas", "starlette", "boto3", "airflow", "scipy.optimize"} & set(loaded)
    assert not [name for name in loaded if name.split(".")[0] == "scones"]


def test_sigterm_ends_the_server_cleanly(server: tuple[int, "subprocess.Popen[str]"]) -> None:
    server[1].send_signal(signal.SIGTERM)
    assert server[1].wait(timeout=10) == 0


def test_recordio_channels_and_an_earlier_model(job: tuple[Path, str], tmp_path: Path) -> None:
    for name in ("train", "validation"):
        folder = tmp_path / "input" / "data" / name
        folder.mkdir(parents=True)
        content = b""
        for number in range(30):
            image = (job[0] / "input" / "data" / name / f"{number}.png").read_bytes()
            record = struct.pack("<IfQQ", 0, number % CLASSES, number, 0) + image
            content += struct.pack("<II", 0xCED7230A, len(record)) + record + bytes(-len(record) % 4)
        (folder / f"{name}-00000.rec").write_bytes(content)
    (tmp_path / "input" / "data" / "model").mkdir()
    with tarfile.open(tmp_path / "input" / "data" / "model" / "model.tar.gz", "w:gz") as archive:
        for file in (job[0] / "model").iterdir():
            archive.add(file, file.name)
    kinds = {"train": "application/x-recordio", "validation": "application/x-recordio"}
    configure(tmp_path, kinds | {"model": "application/x-sagemaker-model"}, mini_batch_size="16")
    done = run_train(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "num_training_samples is 90 but the channel has 30 images" in done.stdout
    assert "Validation accuracy of the model in the channel 'model': " in done.stdout
    report = json.loads((tmp_path / "model" / "training-report.json").read_text())
    assert report["earlier_model_validation"]["accuracy"] >= 0.8  # with its network, which this job does not use
    assert report["network"] is None
    configure(tmp_path, kinds | {"model": "application/x-sagemaker-model"}, num_classes="4")
    failed = run_train(tmp_path)
    assert failed.returncode == 1
    assert "holds a model of 3 classes" in (tmp_path / "output" / "failure").read_text()


@pytest.mark.parametrize(
    ("hyperparameters", "spoil", "said"),
    [
        (
            {"mini_batch_size": "128"}, None,
            "ClientError: The number of input images must be bigger or equal to the mini_batch_size.",
        ),
        ({"learning_rte": "1"}, None, "ClientError: Additional hyperparameters are not allowed ('learning_rte' was"),
        ({}, "train/7.png", "ClientError: train/7.png is truncated or corrupt"),
        ({}, "validation_lst/validation.lst", "ClientError: line 1 of validation.lst has 2 tab-separated columns"),
    ],
)  # fmt: skip
def test_a_failure_is_one_line_that_names_it(
    job: tuple[Path, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    hyperparameters: dict[str, str],
    spoil: str | None,
    said: str,
) -> None:
    """In this process: that it ends one of its own with 1 is seen of the earlier model of other classes."""
    shutil.copytree(job[0] / "input", tmp_path / "input")
    kinds = dict.fromkeys(("train", "validation", "train_lst", "validation_lst"), "application/x-image")
    configure(tmp_path, kinds, **hyperparameters)
    if spoil:
        target = tmp_path / "input" / "data" / spoil
        target.write_bytes(target.read_bytes()[: 100 if spoil.endswith(".png") else 2])
    monkeypatch.setenv("SM_ML_ROOT", str(tmp_path))
    monkeypatch.setattr(train, "_log_as_the_built_in", lambda: None)
    assert train.main() == 1
    failure = (tmp_path / "output" / "failure").read_text()
    assert failure.startswith(said)
    assert failure.count("\n") == 1
    assert not (tmp_path / "model").exists()


def test_serving_without_a_model_says_so(tmp_path: Path) -> None:
    environment = {**os.environ, "SM_ML_ROOT": str(tmp_path), "SAGEMAKER_BIND_TO_PORT": "0"}
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", MODULE, "serve"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr == "the model artifact lacks model-shapes.json\n"
    assert time.monotonic() - started < 30


def test_another_mode_is_a_usage_error() -> None:
    done = subprocess.run([sys.executable, "-m", MODULE, "tune"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "train|serve" in done.stderr
