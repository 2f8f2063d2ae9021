"""Staging against a real S3: what lands there, what is not written twice, and every way the input can be bad."""

from __future__ import annotations

import csv
import hashlib
import http.server
import io
import json
import logging
import shutil
import threading
import uuid
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from scones.aws import layout
from scones.aws.store import ObjectStore
from scones.dataset import upload
from scones.dataset.archive import get_archive
from scones.dataset.cifar import read_archive
from scones.dataset.download import DownloadBudget
from scones.dataset.errors import (
    ArchiveNotFoundError,
    BadInputError,
    CorruptArchiveError,
    DataCheckError,
    UnknownClassError,
    UnsafeArchiveError,
)
from scones.dataset.png import encode_pngs
from scones.dataset.sample import write_sample_archive
from scones.dataset.staging import UPLOAD_THREADS, StagingRequest
from scones.dataset.staging import stage as stage_images
from scones.dataset.store import open_store
from scones.dataset.upload import Uploader
from scones.images.transformations import transform_png
from scones.settings import OFFICIAL_ARCHIVE_MD5, Settings
from tests.support.recordio import unpack_images

CLASSES = ("bicycle", "motorcycle")
Stage = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def s3(ministack: str, aws: Callable[..., Any]) -> Any:
    return aws("s3")


@pytest.fixture
def bucket(s3: Any) -> str:
    name = f"staging-{uuid.uuid4().hex[:12]}"
    s3.create_bucket(Bucket=name)
    return name


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("archive")
    return write_sample_archive(folder / "small.tar.gz", CLASSES, train_per_class=40, test_per_class=6)


@pytest.fixture
def stage(s3: Any, bucket: str, archive: Path, tmp_path: Path) -> Stage:
    def run(**changes: Any) -> dict[str, Any]:
        settings = Settings(cifar100_archive=str(changes.pop("archive", archive)), cache_dir=str(tmp_path / "cache"))
        request = StagingRequest(**{"classes": CLASSES, **changes})
        return dict(stage_images(ObjectStore(bucket, client=s3), request, settings))

    return run


class Reader:
    """Short ways to look into the bucket, and to count what is written to it."""

    def __init__(self, s3: Any, bucket: str) -> None:
        self.s3, self.bucket, self.store = s3, bucket, ObjectStore(bucket, client=s3)

    def body(self, key: str) -> bytes:
        return bytes(self.s3.get_object(Bucket=self.bucket, Key=key)["Body"].read())

    def json(self, key: str) -> Any:
        return json.loads(self.body(key))

    def names(self, prefix: str = "") -> set[str]:
        return {item["Key"] for item in self.store.objects(prefix)}

    def state(self) -> dict[str, Any]:
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=self.bucket)
        return {item["Key"]: (item["ETag"], item["LastModified"]) for page in pages for item in page["Contents"]}


@pytest.fixture
def look(s3: Any, bucket: str) -> Reader:
    return Reader(s3, bucket)


class TestWhatLands:
    def test_recordio(self, stage: Stage, look: Reader, archive: Path) -> None:
        staged = stage()
        prefix = staged["prefix"]
        assert staged["counts"] == {"train": 64, "validation": 16, "test": 12}
        assert (staged["image_shape"], staged["unchanged"]) == ("3,32,32", False)
        assert staged["train_uri"] is None
        assert not look.names(f"{prefix}train/")
        source = read_archive(archive)
        for split in ("train", "validation"):
            uri = staged[f"recordio_{split}_uri"]
            assert uri == f"s3://{look.bucket}/{prefix}recordio/{split}/"
            (key,) = look.names(f"{prefix}recordio/{split}/")  # AWS takes one file per channel
            records = list(unpack_images(look.body(key)))
            lines = [line.split("\t") for line in look.body(f"{prefix}{split}.lst").decode().splitlines()]
            assert [(str(record.index), str(record.label)) for record in records] == [(row[0], row[1]) for row in lines]
            for record in records:
                pixels = np.asarray(Image.open(io.BytesIO(record.content)))
                np.testing.assert_array_equal(pixels, source.train.images[record.index].transpose(1, 2, 0))
                assert source.train.labels[record.index] == (8, 48)[record.label]

    def test_pngs(self, stage: Stage, look: Reader, archive: Path) -> None:
        staged = stage(input_kind="png")
        prefix = staged["prefix"]
        assert staged["recordio_train_uri"] is None
        source = read_archive(archive)
        for split, part in (("train", source.train), ("validation", source.train), ("test", source.test)):
            offset = len(source.train.labels) if split == "test" else 0
            rows = list(csv.reader(look.body(f"{prefix}{split}.lst").decode().splitlines(), delimiter="\t"))
            assert {f"{prefix}{split}/{name}" for _, _, name in rows} == look.names(f"{prefix}{split}/")
            for index, label, name in rows:
                image = Image.open(io.BytesIO(look.body(f"{prefix}{split}/{name}")))
                assert (image.mode, image.format) == ("RGB", "PNG")
                np.testing.assert_array_equal(np.asarray(image), part.images[int(index) - offset].transpose(1, 2, 0))
                assert part.labels[int(index) - offset] == (8, 48)[int(label)]

    def test_manifest_pointer_and_baseline(self, stage: Stage, look: Reader) -> None:
        staged = stage()
        prefix, version = staged["prefix"], staged["dataset_version"]
        assert look.json("datasets/current.json") == {
            "dataset_version": version,
            "manifest_key": f"datasets/{version}/manifest.json",
        }
        manifest = look.json(f"{prefix}manifest.json")
        assert manifest["label_map"] == look.json(f"{prefix}label_map.json") == {"0": "bicycle", "1": "motorcycle"}
        assert manifest["source"] == staged["source"]
        assert manifest["source"]["kind"] == "archive"
        listed = {item["key"] for item in manifest["files"]}
        assert {f"{prefix}{key}" for key in listed} | {f"{prefix}manifest.json"} == look.names(f"{prefix}")
        for item in manifest["files"]:
            body = look.body(f"{prefix}{item['key']}")
            assert (hashlib.sha256(body).hexdigest(), len(body)) == (item["sha256"], item["bytes"])
        statistics = look.json(f"{prefix}baseline/statistics.json")
        assert statistics["dataset"]["item_count"] == 64
        assert look.json(f"{prefix}baseline/constraints.json")

    def test_the_archive_is_kept(self, stage: Stage, look: Reader, archive: Path) -> None:
        md5 = stage()["source"]["md5"]
        assert look.body(f"raw/{md5}/cifar-100-python.tar.gz") == archive.read_bytes()

    def test_through_the_airflow_connection(
        self, bucket: str, archive: Path, aws_connection: str, look: Reader, tmp_path: Path
    ) -> None:
        settings = Settings(cifar100_archive=str(archive), cache_dir=str(tmp_path))
        staged = stage_images(open_store(bucket, UPLOAD_THREADS), StagingRequest(CLASSES), settings)
        assert look.json("datasets/current.json")["dataset_version"] == staged["dataset_version"]

    def test_the_real_images(self, stage: Stage, shared_data: Path, look: Reader) -> None:
        staged = stage(archive=shared_data / "cifar-100-python.tar.gz")
        assert staged["counts"] == {"train": 800, "validation": 200, "test": 100}
        (key,) = look.names(f"{staged['prefix']}recordio/train/")
        assert sum(1 for _ in unpack_images(look.body(key))) == 800


class TestTwice:
    def test_unchanged_data_is_not_uploaded_again(self, stage: Stage, look: Reader) -> None:
        first = stage()
        before = look.state()
        second = stage()
        assert second == {**first, "unchanged": True, "uploaded": 0}
        assert look.state() == before

    def test_the_other_form_is_added_to_the_same_dataset(self, stage: Stage, look: Reader) -> None:
        first = stage()
        before = look.state()
        second = stage(input_kind="png")
        assert second["dataset_version"] == first["dataset_version"]
        assert not second["unchanged"]
        after = look.state()
        assert {key for key in before if after[key] != before[key]} == {f"{first['prefix']}manifest.json"}
        manifest = look.json(f"{first['prefix']}manifest.json")
        assert {f"{first['prefix']}{item['key']}" for item in manifest["files"]} == set(after) - {
            key
            for key in after
            if key.startswith("raw/") or key in ("datasets/current.json", f"{first['prefix']}manifest.json")
        }
        assert stage()["unchanged"]
        assert stage(input_kind="png")["unchanged"]

    def test_what_was_broken_off_is_completed(
        self, stage: Stage, look: Reader, s3: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        written = 0
        whole = Uploader._put

        def dies(self: Uploader, key: str, body: bytes, content_type: str) -> None:
            nonlocal written
            written += 1
            if written > 30:
                raise ConnectionError("the worker was killed")
            whole(self, key, body, content_type)

        monkeypatch.setattr(Uploader, "_put", dies)
        with pytest.raises(ConnectionError, match="killed"):
            stage(input_kind="png")
        assert "datasets/current.json" not in look.names()
        there = {key for key in look.names() if key.startswith("datasets/")}
        assert 20 <= len(there) <= 30
        assert not any(key.endswith("manifest.json") for key in there)
        before = look.state()
        monkeypatch.setattr(Uploader, "_put", whole)
        staged = stage(input_kind="png")
        after = look.state()
        assert all(after[key] == before[key] for key in there)
        assert staged["uploaded"] == len(look.names(staged["prefix"])) - len(there)
        assert stage(input_kind="png")["unchanged"]

    def test_a_lost_or_damaged_object_is_mended(self, stage: Stage, look: Reader, s3: Any) -> None:
        prefix = stage()["prefix"]
        lost, damaged = sorted(look.names(f"{prefix}test/"))[:2]
        good = {key: look.body(key) for key in (lost, damaged)}
        s3.delete_object(Bucket=look.bucket, Key=lost)
        s3.put_object(Bucket=look.bucket, Key=damaged, Body=b"x")
        again = stage()
        assert (again["unchanged"], again["uploaded"]) == (False, 3)  # both, and the manifest
        assert {key: look.body(key) for key in good} == good

    def test_a_damaged_manifest_is_written_anew(self, stage: Stage, look: Reader, s3: Any) -> None:
        prefix = stage()["prefix"]
        s3.put_object(Bucket=look.bucket, Key=f"{prefix}manifest.json", Body=b"{")
        assert stage()["uploaded"] == 1
        assert look.json(f"{prefix}manifest.json")["files"]

    def test_the_pointer_follows_the_last_staging(self, stage: Stage, look: Reader) -> None:
        first, second = stage(), stage(seed=1)
        assert first["dataset_version"] != second["dataset_version"]
        assert stage()["unchanged"]
        assert look.json("datasets/current.json")["dataset_version"] == first["dataset_version"]


class TestAcceptedLabels:
    def add(self, s3: Any, bucket: str, key: str, body: bytes) -> None:
        s3.put_object(Bucket=bucket, Key=key, Body=body)

    def test_train_next_time(self, stage: Stage, s3: Any, bucket: str, caplog: pytest.LogCaptureFixture) -> None:
        plain = stage()
        photo = np.random.default_rng(0).integers(0, 256, (48, 64, 3)).astype(np.uint8)
        self.add(s3, bucket, "inbox/photo.png", next(encode_pngs(photo[None])))
        self.add(s3, bucket, "inbox/broken.png", b"no image")
        rows = "key,label\ninbox/photo.png,bicycle\ninbox/broken.png,bicycle\ninbox/gone.png,motorcycle\n../x,bicycle\n"
        self.add(s3, bucket, "labels/accepted.csv", rows.encode())
        with caplog.at_level(logging.WARNING):
            staged = stage()
        assert staged["counts"]["train"] + staged["counts"]["validation"] == 81
        assert staged["dataset_version"] != plain["dataset_version"]
        left_out = [record.getMessage() for record in caplog.records if "left out" in record.getMessage()]
        assert len(left_out) == 3

    def test_nothing_made_from_a_test_image_trains(
        self, stage: Stage, s3: Any, bucket: str, look: Reader, caplog: pytest.LogCaptureFixture
    ) -> None:
        plain = stage()
        key = sorted(look.names(f"{plain['prefix']}test/"))[0]
        # Darkened as the drift drill does it, and once more under a name of somebody's own.
        changed = transform_png(look.body(key), "night", 0.7)
        drilled, kept = f"traffic/t-1/night/{key.rpartition('/')[2]}", "inbox/night.png"
        self.add(s3, bucket, drilled, changed)
        s3.put_object(Bucket=bucket, Key=kept, Body=changed, Metadata={layout.ORIGIN: key})
        rows = "".join(f"{name},bicycle\n" for name in (key, drilled, kept))
        self.add(s3, bucket, "labels/accepted.csv", f"key,label\n{rows}".encode())
        with caplog.at_level(logging.WARNING):
            assert stage()["dataset_version"] == plain["dataset_version"]
        assert caplog.text.count("test images never train") == 3

    def test_a_bad_table_is_an_error(self, stage: Stage, s3: Any, bucket: str) -> None:
        self.add(s3, bucket, "labels/accepted.csv", b"key,label\na\xff,bicycle")
        with pytest.raises(BadInputError, match="neither UTF-8 nor UTF-16"):
            stage()


class Files(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments: Any) -> None:
        pass


@pytest.fixture
def web(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A web server over a folder: its URL and the folder."""
    folder = tmp_path / "web"
    folder.mkdir()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Files, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}", folder
    server.shutdown()
    server.server_close()
    thread.join()


class TestWhereTheArchiveComesFrom:
    def get(self, s3: Any, bucket: str, tmp_path: Path, **options: Any) -> Any:
        settings = Settings(cache_dir=str(tmp_path / "cache"), **options)
        budget = DownloadBudget(stall_seconds=3, tries=1)
        return get_archive(ObjectStore(bucket, client=s3), CLASSES, settings=settings, budget=budget)

    def test_from_an_http_url(self, s3: Any, bucket: str, tmp_path: Path, web: Any, archive: Path) -> None:
        url, folder = web
        shutil.copy(archive, folder / "a.tar.gz")
        found = self.get(s3, bucket, tmp_path, cifar100_archive=f"{url}/a.tar.gz")
        assert found.path.read_bytes() == archive.read_bytes()
        assert (found.kind, found.uri) == ("archive", f"{url}/a.tar.gz")

    def test_from_an_s3_url(self, s3: Any, bucket: str, tmp_path: Path, archive: Path) -> None:
        s3.upload_file(str(archive), bucket, "somewhere/a.tar.gz")
        found = self.get(s3, bucket, tmp_path, cifar100_archive=f"s3://{bucket}/somewhere/a.tar.gz")
        assert found.path.read_bytes() == archive.read_bytes()
        with pytest.raises(ArchiveNotFoundError, match=f"no object s3://{bucket}/absent"):
            self.get(s3, bucket, tmp_path, cifar100_archive=f"s3://{bucket}/absent")

    def test_a_named_archive_that_is_absent_is_never_replaced_by_a_sample(
        self, s3: Any, bucket: str, tmp_path: Path
    ) -> None:
        with pytest.raises(ArchiveNotFoundError, match="no such file where the task runs"):
            self.get(s3, bucket, tmp_path, cifar100_archive="/absent.tar.gz")

    def test_its_md5_is_checked(self, s3: Any, bucket: str, tmp_path: Path, archive: Path) -> None:
        md5 = hashlib.md5(archive.read_bytes()).hexdigest()
        options = {"cifar100_archive": str(archive)}
        assert self.get(s3, bucket, tmp_path, **options, cifar100_archive_md5=md5.upper()).md5 == md5
        with pytest.raises(CorruptArchiveError, match="correct CIFAR100_ARCHIVE_MD5"):
            self.get(s3, bucket, tmp_path, **options, cifar100_archive_md5="0" * 32)

    def test_with_its_md5_a_url_is_read_once(
        self, s3: Any, bucket: str, tmp_path: Path, web: Any, archive: Path
    ) -> None:
        url, folder = web
        shutil.copy(archive, folder / "a.tar.gz")
        md5 = hashlib.md5(archive.read_bytes()).hexdigest()
        options = {"cifar100_archive": f"{url}/a.tar.gz", "cifar100_archive_md5": md5}
        self.get(s3, bucket, tmp_path, **options)
        (folder / "a.tar.gz").unlink()
        assert self.get(s3, bucket, tmp_path, **options).md5 == md5
        shutil.rmtree(tmp_path / "cache")
        assert self.get(s3, bucket, tmp_path, **options).path.read_bytes() == archive.read_bytes()

    def test_the_official_one_from_a_mirror_then_from_the_cache(
        self, s3: Any, bucket: str, tmp_path: Path, web: Any, archive: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(
            "scones.dataset.archive.OFFICIAL_ARCHIVE_MD5", hashlib.md5(archive.read_bytes()).hexdigest()
        )
        url, folder = web
        shutil.copy(archive, folder / "mirror.tar.gz")
        urls = (f"{url}/absent.tar.gz", f"{url}/mirror.tar.gz")
        first = self.get(s3, bucket, tmp_path, archive_urls=urls)
        assert (first.kind, first.uri) == ("official", urls[1])
        (folder / "mirror.tar.gz").unlink()
        shutil.rmtree(tmp_path / "cache")
        second = self.get(s3, bucket, tmp_path, archive_urls=urls)
        assert second.path.read_bytes() == archive.read_bytes()
        assert second.kind == "official"

    def test_a_mirror_with_another_file_is_not_believed(
        self, s3: Any, bucket: str, tmp_path: Path, web: Any, archive: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        url, folder = web
        shutil.copy(archive, folder / "a.tar.gz")
        with caplog.at_level(logging.WARNING):
            found = self.get(s3, bucket, tmp_path, archive_urls=(f"{url}/a.tar.gz",))
        assert found.kind == "sample"
        assert f"expected {OFFICIAL_ARCHIVE_MD5}" in caplog.text

    def test_a_sample_is_drawn_loudly(
        self, s3: Any, bucket: str, tmp_path: Path, web: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        url, _ = web
        with caplog.at_level(logging.WARNING):
            found = self.get(s3, bucket, tmp_path, archive_urls=(f"{url}/absent",))
        assert found.kind == "sample"
        assert len(read_archive(found.path).train.labels) == 1000
        assert "NO REAL DATA" in caplog.text
        assert "answers 404" in caplog.text


class TestBadInput:
    @pytest.mark.parametrize(
        ("content", "error", "message"),
        [
            (b"this is no archive", CorruptArchiveError, "damaged, incomplete or not a tar.gz"),
            (b"", CorruptArchiveError, "damaged, incomplete"),
        ],
    )
    def test_a_corrupt_archive(
        self, content: bytes, error: type[Exception], message: str, stage: Stage, tmp_path: Path, look: Reader
    ) -> None:
        path = tmp_path / "bad.tar.gz"
        path.write_bytes(content)
        with pytest.raises(error, match=message):
            stage(archive=path)
        assert not [key for key in look.names() if key.startswith("datasets/")]

    def test_a_tar_that_leads_out(self, stage: Stage, tmp_path: Path) -> None:
        import tarfile

        path = tmp_path / "evil.tar.gz"
        with tarfile.open(path, "w:gz") as tar:
            tar.addfile(tarfile.TarInfo("../../evil"), io.BytesIO())
        with pytest.raises(UnsafeArchiveError, match=r"'\.\./\.\./evil' points outside"):
            stage(archive=path)
        assert not list(tmp_path.rglob("evil"))

    def test_an_unknown_class(self, stage: Stage) -> None:
        with pytest.raises(UnknownClassError, match="did you mean bicycle"):
            stage(classes=["bicycl", "motorcycle"])

    def test_an_unknown_class_is_said_before_any_download(self, s3: Any, bucket: str) -> None:
        with pytest.raises(UnknownClassError):
            stage_images(
                ObjectStore(bucket, client=s3), StagingRequest(("bicycl", "bus")), Settings(archive_urls=("ftp://x",))
            )

    def test_a_class_without_images(self, stage: Stage, look: Reader) -> None:
        with pytest.raises(DataCheckError, match="tank has 0 train images"):
            stage(classes=["bicycle", "tank"])
        assert not [key for key in look.names() if key.startswith("datasets/")]

    def test_fewer_images_than_the_mini_batch(self, stage: Stage) -> None:
        with pytest.raises(
            DataCheckError, match=r"64 train images, mini_batch_size 65. Lower mini_batch_size to at most 64"
        ):
            stage(mini_batch_size=65)

    def test_an_unknown_form(self, stage: Stage) -> None:
        with pytest.raises(BadInputError, match="choose one of recordio, png"):
            stage(input_kind="csv")


class TestUploader:
    def test_large_objects_go_in_parts_and_are_recognised(
        self, s3: Any, bucket: str, look: Reader, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(upload, "PART_BYTES", 5 * 1024 * 1024)
        chunks = [bytes([number]) * 700_000 for number in range(20)]
        expected = b"".join(chunks)
        for turn in range(2):
            with Uploader(look.store, {item["Key"]: item for item in look.store.objects("")}) as uploader:
                written = uploader.put_stream("big.rec", lambda: iter(chunks), "application/x-recordio")
            assert (uploader.uploaded, uploader.unchanged) == ((1, 0), (0, 1))[turn]
            assert (written.sha256, written.bytes) == (hashlib.sha256(expected).hexdigest(), len(expected))
        assert look.body("big.rec") == expected

    def test_a_failed_large_upload_leaves_nothing(
        self, s3: Any, bucket: str, look: Reader, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(upload, "PART_BYTES", 5 * 1024 * 1024)

        def chunks() -> Iterator[bytes]:
            yield bytes(11 * 1024 * 1024)
            raise OSError("the disk is gone")

        with pytest.raises(OSError, match="disk is gone"), Uploader(ObjectStore(bucket, client=s3)) as uploader:
            uploader.put_stream("big.rec", chunks, "application/x-recordio")
        assert look.names() == set()
        assert s3.list_multipart_uploads(Bucket=bucket).get("Uploads", []) == []

    def test_boto3_takes_over_where_the_direct_way_fails(
        self, s3: Any, bucket: str, look: Reader, monkeypatch: pytest.MonkeyPatch, free_port_number: int
    ) -> None:
        monkeypatch.setattr(s3, "generate_presigned_url", lambda *a, **k: f"http://127.0.0.1:{free_port_number}/x")
        with Uploader(ObjectStore(bucket, client=s3), threads=2) as uploader:
            for number in range(12):
                uploader.put(f"x/{number}", b"body", "text/plain")
        assert len(look.names("x/")) == 12
        assert uploader._direct.failures >= upload._DirectPut.MAX_FAILURES

    def test_the_content_type_arrives(self, s3: Any, bucket: str) -> None:
        with Uploader(ObjectStore(bucket, client=s3)) as uploader:
            uploader.put("a b/ü+&?.png", b"body", "image/png")
        assert s3.head_object(Bucket=bucket, Key="a b/ü+&?.png")["ContentType"] == "image/png"

    def test_bodies_in_flight_are_bounded(self, s3: Any, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
        in_flight, most, lock, release = 0, 0, threading.Lock(), threading.Event()

        def slow(self: Uploader, key: str, body: bytes, content_type: str) -> None:
            release.wait(30)

        monkeypatch.setattr(Uploader, "_put", slow)
        uploader = Uploader(ObjectStore(bucket, client=s3), threads=2)

        def produce() -> None:
            nonlocal in_flight, most
            for number in range(20):
                uploader.put(f"x/{number}", b"body", "text/plain")
                with lock:
                    in_flight += 1

        thread = threading.Thread(target=produce)
        thread.start()
        for _ in range(200):
            thread.join(timeout=0.05)  # it ends early only if nothing holds it back
            with lock:
                most = in_flight
            if most >= 4:
                break
        thread.join(timeout=0.3)
        assert thread.is_alive()
        assert in_flight == 4
        release.set()
        thread.join()
        with uploader:
            pass

    def test_an_error_surfaces_at_the_end(self, s3: Any, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(upload._DirectPut, "__call__", lambda *a: False)
        with (
            pytest.raises(Exception, match=r"NoSuchBucket|does not exist"),
            Uploader(ObjectStore(f"{bucket}-absent", client=s3)) as uploader,
        ):
            uploader.put("a", b"body", "text/plain")
