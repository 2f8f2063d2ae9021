"""Queues, records, metrics, images, paths: what jobs are made of, without a service around it."""

from __future__ import annotations

import io
import json
import tarfile
import threading
from pathlib import Path

import pytest

from sagemaker_local.artifacts import pack, unpack
from sagemaker_local.container_run import exit_status
from sagemaker_local.errors import ValidationException
from sagemaker_local.images import Command, Images
from sagemaker_local.input_files import parse_manifest
from sagemaker_local.jobs import Control, JobQueue
from sagemaker_local.metrics import MetricReader
from sagemaker_local.mlroot import MlRoot
from sagemaker_local.s3 import DataError, split_uri, under_prefix
from sagemaker_local.transform.records import MEGABYTE, RecordTooLargeError, assemble, payloads

WAIT = 10.0


def test_a_queue_runs_so_many_jobs_at_once_and_the_rest_in_order():
    running, most, order = set(), [0], []
    gate = threading.Event()
    done = threading.Semaphore(0)

    def run(name: str, control: Control) -> None:
        running.add(name)
        order.append(name)
        most[0] = max(most[0], len(running))
        gate.wait(WAIT)
        running.discard(name)
        done.release()

    queue = JobQueue("test", 2, run, lambda name, reason: None)
    started = [queue.submit(f"j{number}") for number in range(6)]
    assert started == [True, True, False, False, False, False]
    gate.set()
    for _ in range(6):
        assert done.acquire(timeout=WAIT)
    assert most[0] == 2
    assert order == [f"j{number}" for number in range(6)]


def test_an_unexpected_error_is_stored_as_a_failure_even_if_that_takes_two_tries():
    failures: list[str] = []
    stored = threading.Event()

    def fail(name: str, reason: str) -> None:
        failures.append(reason)
        if len(failures) == 1:
            raise OSError("disk full")
        stored.set()

    def run(name: str, control: Control) -> None:
        raise RuntimeError("a defect")

    JobQueue("test", 1, run, fail).submit("j")
    assert stored.wait(WAIT)
    assert failures == ["InternalServerError: RuntimeError: a defect"] * 2


def test_closing_abandons_jobs_without_failing_them():
    failures: list[str] = []
    begun = threading.Event()

    def run(name: str, control: Control) -> None:
        begun.set()
        control.pause(WAIT)
        control.check_abandoned()
        raise AssertionError("not abandoned")

    queue = JobQueue("test", 1, run, lambda name, reason: failures.append(reason))
    queue.submit("a")
    queue.submit("b")
    assert begun.wait(WAIT)
    queue.close()
    assert failures == []


@pytest.mark.parametrize(
    ("body", "strategy", "limit", "expected"),
    [
        (b"a\nb\nc", "SingleRecord", 6, [b"a", b"b", b"c"]),
        (b"a\r\nb\r\n", "SingleRecord", 6, [b"a", b"b"]),
        (b"a\n\n\nb\n", "MultiRecord", 6, [b"a\nb\n"]),
        (b"", "MultiRecord", 6, []),
        (b"x" * 700_000 + b"\n" + b"y" * 700_000, "MultiRecord", 1, [b"x" * 700_000 + b"\n", b"y" * 700_000]),
    ],
)
def test_lines_become_requests(body, strategy, limit, expected):
    assert list(payloads(body, split="Line", strategy=strategy, limit_mb=limit)) == expected


def test_a_record_that_is_too_large_is_refused_unless_there_is_no_limit():
    with pytest.raises(RecordTooLargeError, match="MaxPayloadInMB"):
        list(payloads(b"x" * (MEGABYTE + 1), split="None", strategy="MultiRecord", limit_mb=1))
    assert list(payloads(b"x" * (MEGABYTE + 1), split="None", strategy="MultiRecord", limit_mb=0))


def test_answers_are_assembled():
    assert assemble([b"a", b"b\n"], "Line") == b"a\nb\n"
    assert assemble([b"a", b"b"], "None") == b"ab"


def test_the_last_value_of_each_metric_counts():
    reader = MetricReader([{"Name": "acc", "Regex": r"accuracy=(\S+)"}, {"Name": "never", "Regex": "x(y)"}])
    for second, line in enumerate(["accuracy=0.5", "accuracy=oops", "noise", "accuracy=0.75"]):
        reader.observe(line, 100.0 + second)
    assert reader.final() == [{"MetricName": "acc", "Value": 0.75, "Timestamp": 103.0}]


def test_the_builtin_image_and_its_metrics():
    image = Images().find("registry.example/image-classification:1")
    assert image.command[1:] == ("-m", "sagemaker_local.algorithms.image_classification")
    reader = MetricReader(list(image.metric_definitions))
    reader.observe("[08/25/2024 08:37:08 INFO 1] Epoch[3] Train-accuracy=0.619960", 1.0)
    reader.observe("[08/25/2024 08:37:08 INFO 1] Epoch[3] Validation-accuracy=0.494792", 2.0)
    assert {m["MetricName"]: m["Value"] for m in reader.final()} == {
        "train:accuracy": 0.61996,
        "validation:accuracy": 0.494792,
    }


def test_an_images_file_is_read_before_the_builtin_images(tmp_path):
    path = tmp_path / "images.json"
    entry = {"pattern": "*image-classification*", "command": ["python", "-m", "mine"]}
    path.write_text(json.dumps({"images": [entry]}))
    assert Images.load(path).find("x/image-classification:1").command[1:] == ("-m", "mine")
    with pytest.raises(ValidationException, match="no command for image other"):
        Images.load(path).find("other")


@pytest.mark.parametrize(
    "text", ["not json", "[]", '{"images": [{"pattern": "x"}]}', '{"images": [{"pattern": "x", "command": []}]}',
             '{"images": [{"pattern": "x", "command": ["a"], "metric_definitions": [{"Name": "m", "Regex": "a"}]}]}',
             '{"images": [{"pattern": "x", "command": ["a"], "metric_definitions": [{"Name": "m", "Regex": "("}]}]}',
             "[" * 99999]
)  # fmt: skip
def test_a_wrong_images_file_is_named(tmp_path, text):
    path = tmp_path / "images.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"images\.json: not an images file"):
        Images.load(path)


@pytest.mark.parametrize(
    ("keys", "prefix", "expected"),
    [
        (["train/a.png", "train/d/b.png"], "train/", ["a.png", "d/b.png"]),
        (["train/a.png"], "train", ["a.png"]),
        (["train.lst"], "train.lst", ["train.lst"]),
        (["x/train.lst"], "x/train.lst", ["train.lst"]),
        (["data/ab1", "data/abc/d"], "data/ab", ["ab1", "abc/d"]),
        (["a", "b/c"], "", ["a", "b/c"]),
    ],
)
def test_where_keys_go_below_a_channel(keys, prefix, expected):
    assert list(under_prefix(keys, prefix).values()) == expected


def test_uris():
    assert split_uri("s3://bucket/a/b") == ("bucket", "a/b")
    assert split_uri("s3://bucket") == ("bucket", "")
    for wrong in ("https://bucket/a", "s3:///a", "bucket/a"):
        with pytest.raises(DataError, match="is not an S3 URI"):
            split_uri(wrong)


@pytest.mark.parametrize(
    "text", [b"{}", b"[]", b'["a"]', b'[{"prefix": "s3://b/"}]', b'[{"prefix": "s3://b/"}, 3]', b"x", b"[" * 99999]
)
def test_a_wrong_manifest_is_refused(text):
    with pytest.raises(DataError, match="s3://b/m"):
        parse_manifest(text, "s3://b/m")


def test_a_model_artifact_comes_out_as_it_went_in(tmp_path):
    source = tmp_path / "model"
    (source / "deep").mkdir(parents=True)
    (source / "deep" / "weights").write_bytes(b"\x00\x01")
    pack(source, tmp_path / "model.tar.gz")
    unpack(tmp_path / "model.tar.gz", tmp_path / "out")
    assert (tmp_path / "out" / "deep" / "weights").read_bytes() == b"\x00\x01"


@pytest.mark.parametrize(
    ("name", "kind", "link"),
    [
        ("../escaped", tarfile.REGTYPE, ""),
        ("deep/../../escaped", tarfile.REGTYPE, ""),
        ("{outside}", tarfile.REGTYPE, ""),
        ("away", tarfile.SYMTYPE, "../escaped"),
        ("away", tarfile.SYMTYPE, "{outside}"),
        ("away", tarfile.LNKTYPE, "../escaped"),
        ("pipe", tarfile.FIFOTYPE, ""),
        ("device", tarfile.CHRTYPE, ""),
    ],
)
def test_a_hostile_artifact_is_refused(name, kind, link, tmp_path):
    outside = tmp_path / "escaped"
    hostile = tmp_path / "hostile.tar.gz"
    with tarfile.open(hostile, "w:gz") as tar:
        member = tarfile.TarInfo(name.format(outside=outside))
        member.type, member.linkname, member.size = kind, link.format(outside=outside), int(kind == tarfile.REGTYPE)
        tar.addfile(member, io.BytesIO(b"x"))
    with pytest.raises(DataError, match=r"Cannot extract the model artifact: '.*(outside|neither)"):
        unpack(hostile, tmp_path / "out")
    assert not outside.exists()
    assert list((tmp_path / "out").rglob("*")) in ([], [tmp_path / "out" / "deep"])


def test_links_within_an_artifact_stay_links_and_nothing_is_written_through_them(tmp_path):
    source = tmp_path / "model"
    (source / "v1").mkdir(parents=True)
    (source / "v1" / "weights").write_bytes(b"w")
    (source / "v1" / "run").write_bytes(b"#!")
    (source / "v1" / "run").chmod(0o777)
    (source / "current").symlink_to("v1")
    (source / "same").hardlink_to(source / "v1" / "weights")
    pack(source, tmp_path / "model.tar.gz")
    unpack(tmp_path / "model.tar.gz", tmp_path / "out")
    assert (tmp_path / "out" / "current" / "weights").read_bytes() == b"w"
    assert (tmp_path / "out" / "same").read_bytes() == b"w"
    assert (tmp_path / "out" / "v1" / "run").stat().st_mode & 0o777 == 0o755


def test_a_broken_artifact_is_refused(tmp_path):
    (tmp_path / "broken.tar.gz").write_bytes(b"not a tar")
    with pytest.raises(DataError, match="Cannot extract"):
        unpack(tmp_path / "broken.tar.gz", tmp_path / "out")


def test_container_paths_stay_below_opt_ml():
    root = MlRoot(Path("/jobs/j/ml"))
    assert root.local("/opt/ml/processing/in", "LocalPath") == Path("/jobs/j/ml/processing/in")
    assert root.translate(Command(("--in=/opt/ml/input/data",))) == Command(("--in=/jobs/j/ml/input/data",))
    assert root.translate(Command(("/opt/ml/x",), "own:1")) == Command(("/opt/ml/x",), "own:1")
    for outside in ("/etc", "/opt/ml", "/opt/ml/../../etc", "relative"):
        with pytest.raises(ValidationException, match="below /opt/ml"):
            root.local(outside, "LocalPath")


def test_exit_codes_are_a_container_runtimes():
    assert (exit_status(3), exit_status(-9)) == (3, 137)
