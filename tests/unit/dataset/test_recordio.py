"""RecordIO byte by byte as dmlc-core and MXNet define it, and read back."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sagemaker_local.algorithms.image_classification.recordio import RecordFile
from scones.dataset.recordio import pack_image, pack_record
from tests.support.recordio import ImageRecord, RecordIOError, unpack_images, unpack_records

MAGIC = b"\x0a\x23\xd7\xce"


def pack_images(records: list[ImageRecord]) -> list[bytes]:
    return [pack_image(record.label, record.index, record.content) for record in records]


def test_a_whole_record() -> None:
    assert pack_record(b"hello") == MAGIC + struct.pack("<I", 5) + b"hello" + b"\0\0\0"
    assert pack_record(b"four") == MAGIC + struct.pack("<I", 4) + b"four"
    assert pack_record(b"") == MAGIC + struct.pack("<I", 0)


def test_an_image_record_as_im2rec_packs_it() -> None:
    expected_header = b"\0\0\0\0" + struct.pack("<f", 1.0) + struct.pack("<QQ", 152, 0)
    packed = pack_image(1, 152, b"PNG!")
    assert packed == MAGIC + struct.pack("<I", 28) + expected_header + b"PNG!"


def test_magic_inside_is_split_with_flags_1_2_3() -> None:
    data = b"aaaa" + MAGIC + b"bbbb" + MAGIC + b"cc"
    assert pack_record(data) == (
        MAGIC + struct.pack("<I", 1 << 29 | 4) + b"aaaa"
        + MAGIC + struct.pack("<I", 2 << 29 | 4) + b"bbbb"
        + MAGIC + struct.pack("<I", 3 << 29 | 2) + b"cc\0\0"
    )  # fmt: skip
    assert list(unpack_records(pack_record(data))) == [data]


def test_magic_first_and_last() -> None:
    # As dmlc's writer does it: empty first and last parts.
    data = MAGIC + MAGIC
    assert pack_record(data) == (
        MAGIC + struct.pack("<I", 1 << 29) + MAGIC + struct.pack("<I", 2 << 29) + MAGIC + struct.pack("<I", 3 << 29)
    )
    assert list(unpack_records(pack_record(data))) == [data]


def test_magic_off_the_boundary_is_left_alone() -> None:
    data = b"x" + MAGIC + b"yyy"
    assert pack_record(data) == MAGIC + struct.pack("<I", 8) + data


@given(st.lists(st.lists(st.sampled_from([MAGIC, b"a", b"bcd", b"efgh"]), max_size=12).map(b"".join), max_size=6))
def test_reads_back_what_it_wrote(records: list[bytes]) -> None:
    packed = b"".join(pack_record(record) for record in records)
    assert len(packed) % 4 == 0
    assert list(unpack_records(packed)) == records


@given(
    st.lists(
        st.builds(ImageRecord, st.integers(0, 99), st.integers(0, 2**63), st.binary(max_size=40) | st.just(MAGIC * 3)),
        max_size=5,
    )
)
def test_images_read_back(records: list[ImageRecord]) -> None:
    assert list(unpack_images(b"".join(pack_images(records)))) == records


def test_magic_occurs_only_where_a_part_starts() -> None:
    packed = pack_record(MAGIC * 2 + b"abcd") + pack_record(b"efgh")
    starts = [at for at in range(0, len(packed), 4) if packed[at : at + 4] == MAGIC]
    for at in starts:
        flag = struct.unpack_from("<I", packed, at + 4)[0] >> 29
        assert flag in (0, 1, 2, 3)
    assert len(starts) == 4


@pytest.mark.parametrize(
    ("damaged", "message"),
    [
        (b"abcdefgh", "no record starts at byte 0"),
        (MAGIC + b"\x01", "middle of a record's prefix"),
        (MAGIC + struct.pack("<I", 100) + b"short", "claims 100 bytes"),
        (MAGIC + struct.pack("<I", 2 << 29), "out of order"),
        (MAGIC + struct.pack("<I", 1 << 29) + pack_record(b"x"), "out of order"),
        (MAGIC + struct.pack("<I", 1 << 29), "last part"),
        (pack_record(b"hello")[:-1], "ends before"),
    ],
)
def test_damage_is_named(damaged: bytes, message: str) -> None:
    with pytest.raises(RecordIOError, match=message):
        list(unpack_records(damaged))


def test_damaged_images_are_named() -> None:
    with pytest.raises(RecordIOError, match="too short"):
        list(unpack_images(pack_record(b"tiny")))
    with pytest.raises(RecordIOError, match="several labels"):
        list(unpack_images(pack_record(struct.pack("<IfQQ", 2, 0.0, 1, 0) + b"12345678")))


def test_the_algorithm_reads_what_staging_writes(tmp_path: Path) -> None:
    records = [ImageRecord(1, 152, b"PNG!" + MAGIC * 2 + b"xy"), ImageRecord(0, 2**40, b""), ImageRecord(99, 3, b"abc")]
    path = tmp_path / "train-00000.rec"
    path.write_bytes(b"".join(pack_images(records)))
    with RecordFile(path) as found:
        read = [found.read(offset) for offset in found.offsets()]
    assert read == [(float(record.label), record.index, record.content) for record in records]
