"""Reading .lst listings and RecordIO files, sound and broken."""

import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sagemaker_local.algorithms.image_classification.channels import open_channel, read_list
from sagemaker_local.algorithms.image_classification.errors import AlgorithmError
from sagemaker_local.algorithms.image_classification.paths import ContainerPaths
from sagemaker_local.algorithms.image_classification.recordio import MAGIC, RecordFile

MAGIC_BYTES = struct.pack("<I", MAGIC)


def write_record(data: bytes) -> bytes:
    """A record as dmlc-core's RecordIOWriter cuts it: at every magic on a 4-byte boundary."""
    parts, start = [], 0
    for at in range(0, len(data) - len(data) % 4, 4):
        if data[at : at + 4] == MAGIC_BYTES:
            parts.append(data[start:at])
            start = at + 4
    parts.append(data[start:])
    written = b""
    for number, part in enumerate(parts):
        flag = 0 if len(parts) == 1 else 1 if number == 0 else 3 if number == len(parts) - 1 else 2
        written += MAGIC_BYTES + struct.pack("<I", flag << 29 | len(part)) + part + bytes(-len(part) % 4)
    return written


def image_record(label: float, content: bytes, identifier: int = 0, labels: int = 0) -> bytes:
    extra = struct.pack(f"<{labels}f", *[label] * labels)
    return write_record(struct.pack("<IfQQ", labels, label, identifier, 0) + extra + content)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.lists(st.sampled_from([b"\x00", b"ab", b"abcd", MAGIC_BYTES]), max_size=8).map(b"".join),
        min_size=1, max_size=5,
    )
)  # fmt: skip
def test_records_come_back_whole_whatever_they_hold(
    tmp_path_factory: pytest.TempPathFactory, images: list[bytes]
) -> None:
    path = tmp_path_factory.mktemp("rec") / "a.rec"
    path.write_bytes(b"".join(image_record(n % 3, image, n) for n, image in enumerate(images)))
    with RecordFile(path) as record:
        read = [record.read(offset) for offset in record.offsets()]
    assert read == [(float(n % 3), n, image) for n, image in enumerate(images)]


def test_one_label_in_an_array_is_that_label(tmp_path: Path) -> None:
    path = tmp_path / "a.rec"
    path.write_bytes(image_record(1, b"image", 7, labels=1))
    with RecordFile(path) as record:
        assert record.read(0) == (1.0, 7, b"image")


GOOD = image_record(1, b"image", 7)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\x89PNG" + bytes(40), r"a.rec has 0x474e5089 instead of the RecordIO magic 0xced7230a at byte 0"),
        (GOOD + b"xx", "a.rec ends inside a record header at byte 40"),
        (GOOD[:-8], "a.rec ends inside the record at byte 0"),
        (GOOD + GOOD[:20], "a.rec ends inside the record at byte 40"),
        (write_record(b"short"), "a.rec has a record of 5 bytes at byte 0"),
        (image_record(1, b"image", labels=2), "a.rec has a record with 2 labels"),
        (MAGIC_BYTES + struct.pack("<I", 2 << 29 | 4) + b"abcd", "begins in its middle"),
        (MAGIC_BYTES + struct.pack("<I", 1 << 29 | 4) + b"abcd" + GOOD, "unfinished record at byte 0"),
        (image_record(2, b"image"), "the record at byte 0 of train/a.rec has the class 2; classes are whole numbers"),
        (image_record(0.5, b"image"), "has the class 0.5"),
        (image_record(float("nan"), b"image"), "has the class nan"),
    ],
)
def test_a_broken_record_file_is_named(tmp_path: Path, content: bytes, said: str) -> None:
    train = tmp_path / "input" / "data" / "train"
    train.mkdir(parents=True)
    (train / "a.rec").write_bytes(content)
    with pytest.raises(AlgorithmError, match=said):
        open_channel(
            ContainerPaths(tmp_path), {"train": {"ContentType": "application/x-recordio"}}, "train", num_classes=2
        )


def test_records_of_several_files_and_folders_are_one_channel(tmp_path: Path) -> None:
    train = tmp_path / "input" / "data" / "train"
    (train / "more").mkdir(parents=True)
    (train / "a-00000.rec").write_bytes(image_record(0, b"first") + image_record(1, b"second"))
    (train / "more" / "a-00001.rec").write_bytes(image_record(1, b"third"))
    channel = open_channel(ContainerPaths(tmp_path), {"train": {"TrainingInputMode": "File"}}, "train", 2)
    assert channel.labels == [0, 1, 1]
    assert [channel.content(index) for index in range(3)] == [b"first", b"second", b"third"]
    assert channel.describe(2) == "record at byte 0 of train/more/a-00001.rec"
    channel.close()


@pytest.fixture
def images(tmp_path: Path) -> Path:
    root = tmp_path / "train"
    (root / "sub").mkdir(parents=True)
    for name in ("a.png", "b.png", "sub/c.png"):
        (root / name).write_bytes(b"image")
    (tmp_path / "secret.png").write_bytes(b"secret")
    return root


def test_a_listing_gives_files_and_classes_in_its_order(tmp_path: Path, images: Path) -> None:
    listing = tmp_path / "train.lst"
    listing.write_text("16\t1\tb.png\n152\t0\tsub/c.png\n\n3\t0.0\ta.png\n")
    examples = read_list(listing, images, "train", 2)
    assert [(example.path.name, example.label) for example in examples] == [("b.png", 1), ("c.png", 0), ("a.png", 0)]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "train.lst lists no image"),
        ("1\t0\ta.png\n2 0 b.png\n", "line 2 of train.lst has 1 tab-separated columns"),
        ("1\t0\t1\ta.png\n", "line 1 of train.lst has 4 tab-separated columns"),
        ("x\t0\ta.png\n", "line 1 of train.lst: index and class must be numbers"),
        ("1\tbike\ta.png\n", "line 1 of train.lst: index and class must be numbers"),
        ("1\t0\ta.png\n1\t0\tb.png\n", "line 2 of train.lst repeats the index 1"),
        ("1\t2\ta.png\n", "line 1 of train.lst has the class 2; classes are whole numbers from 0 to 1"),
        ("1\t-1\ta.png\n", "has the class -1"),
        ("1\t0.5\ta.png\n", "has the class 0.5"),
        ("1\t0\tgone.png\n", "line 1 of train.lst names 'gone.png', which is not in the channel 'train'"),
        ("1\t0\t../secret.png\n", "line 1 of train.lst points outside the channel 'train'"),
        ("1\t0\t/etc/hostname\n", "line 1 of train.lst points outside the channel 'train'"),
        ("1\t0\tlink.png\n", "line 1 of train.lst points outside the channel 'train'"),
        ("1\t0\tsub\n", "which is not in the channel"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, images: Path, text: str, said: str) -> None:
    (images / "link.png").symlink_to(tmp_path / "secret.png")
    listing = tmp_path / "train.lst"
    listing.write_text(text)
    with pytest.raises(AlgorithmError, match=said):
        read_list(listing, images, "train", 2)


def test_a_binary_listing_is_not_text(tmp_path: Path, images: Path) -> None:
    listing = tmp_path / "train.lst"
    listing.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(AlgorithmError, match=r"train.lst cannot be read as text"):
        read_list(listing, images, "train", 2)


@pytest.mark.parametrize(
    ("channels", "said"),
    [
        ({}, "The channel 'train' is missing; the job has none"),
        ({"train": {"ContentType": "text/csv"}}, "content type 'text/csv'; use application/x-image"),
        ({"train": {"ContentType": "application/x-image"}}, "The channel 'train_lst' is missing"),
        ({"train": {"ContentType": "application/x-recordio"}}, "holds no .rec file"),
        ({"train": {"TrainingInputMode": "Pipe"}}, "asks for input mode Pipe"),
        ({"train": {}, "train_lst": {}}, "'train_lst' must hold exactly one .lst file; it holds 0"),
        ({"validation": {}, "train": {}}, "The channel 'train_lst' is missing"),
    ],
)
def test_wrong_channels_are_named(tmp_path: Path, channels: dict[str, dict[str, str]], said: str) -> None:
    train = tmp_path / "input" / "data" / "train"
    train.mkdir(parents=True)
    (train / "a.png").write_bytes(b"image")
    with pytest.raises(AlgorithmError, match=said):
        open_channel(ContainerPaths(tmp_path), channels, "train", 2)


def test_an_empty_channel_is_said_to_be_empty(tmp_path: Path) -> None:
    (tmp_path / "input" / "data" / "train").mkdir(parents=True)
    with pytest.raises(AlgorithmError, match="The channel 'train' has no data"):
        open_channel(ContainerPaths(tmp_path), {"train": {}}, "train", 2)
