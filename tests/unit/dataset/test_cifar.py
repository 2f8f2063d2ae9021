"""Reading the archive: honest ones, hostile ones, broken ones."""

from __future__ import annotations

import gzip
import io
import pickle
import tarfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scones.dataset import cifar, unpack
from scones.dataset.cifar_classes import FINE_NAMES
from scones.dataset.errors import (
    ArchiveNotFoundError,
    CorruptArchiveError,
    UnknownClassError,
    UnsafeArchiveError,
    UnsafePickleError,
)
from scones.dataset.sample import write_sample_archive
from tests.support.pickles import pickle_python2

META = pickle_python2({"fine_label_names": list(FINE_NAMES), "coarse_label_names": ["all"]})


def split(count: int = 3, **changes: Any) -> bytes:
    content: dict[str, Any] = {
        "data": np.full((count, 3072), 7, dtype=np.uint8),
        "fine_labels": [8] * count,
        "filenames": [f"{number}.png" for number in range(count)],
    }
    return pickle_python2({**content, **changes})


def archive(*extra: tuple[tarfile.TarInfo, bytes], **members: bytes) -> io.BytesIO:
    members = {"meta": META, "train": split(), "test": split(2), **members}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for info, content in extra:
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        for name, content in members.items():
            info = tarfile.TarInfo(f"cifar-100-python/{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    buffer.seek(0)
    return buffer


def member(name: str, **attributes: object) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    for key, value in attributes.items():
        setattr(info, key, value)
    return info, b"" if attributes else b"content"


class TestHonest:
    def test_the_real_archive(self, shared_data: Path) -> None:
        read = cifar.read_archive(shared_data / "cifar-100-python.tar.gz")
        ids = cifar.class_ids(["bicycle", "motorcycle"], read.class_names)
        assert ids == [8, 48]
        assert [int((read.train.labels == label).sum()) for label in ids] == [500, 500]
        assert [int((read.test.labels == label).sum()) for label in ids] == [50, 50]
        assert read.train.images.shape[1:] == (3, 32, 32)
        assert read.class_names == list(FINE_NAMES)

    def test_channels_rows_columns(self) -> None:
        row = np.zeros((1, 3072), dtype=np.uint8)
        row[0, 1024 + 32 * 5 + 9] = 200  # green, row 5, column 9
        read = cifar.read_archive(archive(train=split(1, data=row)))
        assert read.train.images[0, 1, 5, 9] == 200
        assert int((read.train.images > 0).sum()) == 1

    def test_folders_and_other_files_are_passed_over(self) -> None:
        folder = member("cifar-100-python", type=tarfile.DIRTYPE)
        read = cifar.read_archive(archive(folder, member("cifar-100-python/file.txt~"), member("other/train")))
        assert len(read.train.labels) == 3

    def test_nothing_is_written_to_disk(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        cifar.read_archive(archive(member("cifar-100-python/file.txt~")))
        assert list(tmp_path.iterdir()) == []


class TestHostile:
    @pytest.mark.parametrize(
        "name", ["../evil", "cifar-100-python/../../evil", "/etc/evil", "a\\..\\evil", "C:/evil", "\\evil"]
    )
    def test_a_name_that_leads_out(self, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        with pytest.raises(UnsafeArchiveError, match="points outside"):
            cifar.read_archive(archive(member(name)))
        assert list(tmp_path.rglob("*evil*")) == []

    @pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
    def test_a_link(self, kind: bytes) -> None:
        with pytest.raises(UnsafeArchiveError, match=r"link to '/etc/passwd'"):
            cifar.read_archive(archive(member("cifar-100-python/train", type=kind, linkname="/etc/passwd")))

    @pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
    def test_a_device(self, kind: bytes) -> None:
        with pytest.raises(UnsafeArchiveError, match="device"):
            cifar.read_archive(archive(member("cifar-100-python/train", type=kind)))

    def test_the_same_member_twice(self) -> None:
        with pytest.raises(UnsafeArchiveError, match="twice"):
            cifar.read_archive(archive((tarfile.TarInfo("cifar-100-python/meta"), META)))

    def test_a_bomb_ends_early(self) -> None:
        bomb = (tarfile.TarInfo("cifar-100-python/other"), bytes(4_000_000))
        packed = archive(bomb)
        assert len(packed.getvalue()) < 100_000
        with pytest.raises(UnsafeArchiveError, match="more than 1,000,000 bytes"):
            cifar.read_archive(packed, max_unpacked_bytes=1_000_000)

    def test_a_claimed_size_reserves_nothing(self) -> None:
        info = tarfile.TarInfo("cifar-100-python/train")
        info.size = 8 * 1024**3
        packed = io.BytesIO(gzip.compress(info.tobuf() + b"short"))
        with pytest.raises((UnsafeArchiveError, CorruptArchiveError), match=r"claims|ends|damaged"):
            cifar.read_archive(packed)

    def test_a_long_extended_header_costs_no_time(self) -> None:
        # tarfile reads one with effort that grows with the square of its digits: 4 s for 40,000.
        info = tarfile.TarInfo("x")
        info.type, info.size = tarfile.XHDTYPE, 40_000
        packed = io.BytesIO(gzip.compress(info.tobuf(tarfile.USTAR_FORMAT) + b"9" * 40_448))
        with pytest.raises(UnsafeArchiveError, match="extended header of 40,000 bytes"):
            cifar.read_archive(packed)

    def test_an_archive_as_tar_programs_write_it_today_is_read(self) -> None:
        """A time with a fraction makes a small extended header of each member."""
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w:gz", format=tarfile.PAX_FORMAT) as tar:
            for name, content in {"meta": META, "train": split(), "test": split(2)}.items():
                info = tarfile.TarInfo(f"cifar-100-python/{name}")
                info.size, info.mtime = len(content), 1.5
                tar.addfile(info, io.BytesIO(content))
        buffer.seek(0)
        assert len(cifar.read_archive(buffer).train.labels) == 3

    @pytest.mark.parametrize("kind", ["gnu", "pax"])
    def test_a_sparse_member_is_refused(self, kind: str) -> None:
        info = tarfile.TarInfo("cifar-100-python/train")
        if kind == "gnu":
            info.type = tarfile.GNUTYPE_SPARSE
        else:
            info.pax_headers = {"GNU.sparse.size": str(511 * 1024**2), "GNU.sparse.map": "0,0"}
        head = info.tobuf(tarfile.PAX_FORMAT if kind == "pax" else tarfile.GNU_FORMAT)
        with pytest.raises(UnsafeArchiveError, match="is sparse"):
            cifar.read_archive(io.BytesIO(gzip.compress(head + bytes(1024))))

    def test_a_path_is_read_in_a_process_of_its_own_with_limits(self, tmp_path: Path) -> None:
        honest = tmp_path / "a.tar.gz"
        honest.write_bytes(archive().getvalue())
        assert set(unpack.unpack(honest)) == {"train", "test", "meta"}
        with pytest.raises(UnsafeArchiveError, match="more than 1,000 bytes"):
            unpack.unpack(honest, limit=1000)
        # Large: what is read between two of the kernel's looks at the time is not ended.
        honest.write_bytes(archive(train=bytes(50 << 20)).getvalue())
        with pytest.raises(UnsafeArchiveError, match="ended by signal"):
            unpack.unpack(honest, cpu_seconds=0)
        honest.write_bytes(b"no archive")
        with pytest.raises(CorruptArchiveError, match="not a tar"):
            unpack.unpack(honest)

    def test_many_members(self) -> None:
        with pytest.raises(UnsafeArchiveError, match="more than 100 members"):
            cifar.read_archive(archive(*(member(f"cifar-100-python/x{number}") for number in range(120))))

    def test_a_hostile_pickle_inside(self) -> None:
        with pytest.raises(UnsafePickleError, match=r"train: .*posix\.system|train: .*os\.system"):
            cifar.read_archive(archive(train=b"cos\nsystem\n(S'true'\ntR."))


class TestBroken:
    def test_no_such_file(self, tmp_path: Path) -> None:
        with pytest.raises(ArchiveNotFoundError, match="CIFAR100_ARCHIVE"):
            cifar.read_archive(tmp_path / "absent.tar.gz")

    @pytest.mark.parametrize(
        "content",
        [b"", b"no archive at all", gzip.compress(b"no tar" * 200, mtime=0), zlib.compress(b"x")],
        ids=["empty", "text", "gzip without tar", "zlib"],
    )
    def test_no_archive(self, content: bytes) -> None:
        with pytest.raises(CorruptArchiveError, match="official source"):
            cifar.read_archive(io.BytesIO(content))

    @pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.99])
    def test_cut_off(self, share: float) -> None:
        whole = archive().getvalue()
        with pytest.raises(CorruptArchiveError, match=r"Download it again|not CIFAR-100"):
            cifar.read_archive(io.BytesIO(whole[: int(len(whole) * share)]))

    def test_flipped_bits(self) -> None:
        whole = bytearray(
            archive(
                train=split(50, data=np.random.default_rng(0).integers(0, 255, (50, 3072)).astype(np.uint8))
            ).getvalue()
        )
        whole[len(whole) // 2] ^= 0xFF
        with pytest.raises(CorruptArchiveError):
            cifar.read_archive(io.BytesIO(bytes(whole)))

    def test_a_member_missing(self) -> None:
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
            info = tarfile.TarInfo("cifar-10-batches-py/data_batch_1")
            tar.addfile(info, io.BytesIO())
        buffer.seek(0)
        with pytest.raises(CorruptArchiveError, match=r"lacks cifar-100-python/train.*test.*meta"):
            cifar.read_archive(buffer)

    @pytest.mark.parametrize(
        ("train", "message"),
        [
            (split(data=np.zeros((3, 3073), dtype=np.uint8)), r"data is \(3, 3073\)"),
            (split(data=np.zeros((2, 3072), dtype=np.uint8)), "2 images, 3 labels and 3 file names"),
            (split(fine_labels=[8, 8, 100]), "class ids below 100"),
            (split(fine_labels=["8", "8", "8"]), "class ids below 100"),
            (split(filenames=[1, 2, 3]), "filenames"),
            (pickle.dumps({"data": [1, 2]}, protocol=2), "data is list"),
            (pickle.dumps([1, 2], protocol=2), "a list instead of a dictionary"),
        ],
    )
    def test_content_that_does_not_belong_together(self, train: bytes, message: str) -> None:
        with pytest.raises(CorruptArchiveError, match=message):
            cifar.read_archive(archive(train=train))

    def test_meta_without_names(self) -> None:
        with pytest.raises(CorruptArchiveError, match="fine_label_names"):
            cifar.read_archive(archive(meta=pickle_python2({"fine_label_names": []})))


class TestClassIds:
    def test_position_is_the_index(self) -> None:
        assert cifar.class_ids(["motorcycle", "bicycle"], FINE_NAMES) == [48, 8]

    @pytest.mark.parametrize(
        ("classes", "message"),
        [
            (["bicycl", "motorcycle"], "'bicycl' \\(did you mean bicycle"),
            (["Pickup Truck", "bus"], "'Pickup Truck' \\(did you mean pickup_truck"),
            (["zzzz", "bus"], "no class 'zzzz'. Its 100 classes: apple, "),
            (["bus", "bus"], "asked for twice"),
            (["bus"], "At least two"),
            ([], "At least two"),
        ],
    )
    def test_errors_help(self, classes: list[str], message: str) -> None:
        with pytest.raises(UnknownClassError, match=message):
            cifar.class_ids(classes, FINE_NAMES)


def test_the_sample_is_read_by_python_too(tmp_path: Path) -> None:
    path = write_sample_archive(tmp_path / "a.tar.gz", ["bus", "tank"], train_per_class=5, test_per_class=2)
    with tarfile.open(path) as tar:
        train = tar.extractfile("cifar-100-python/train")
        assert train is not None
        theirs = pickle.load(train, encoding="bytes")
    ours = cifar.read_archive(path)
    np.testing.assert_array_equal(theirs[b"data"].reshape(-1, 3, 32, 32), ours.train.images)
    assert theirs[b"fine_labels"] == ours.train.labels.tolist()
