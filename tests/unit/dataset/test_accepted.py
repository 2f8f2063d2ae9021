"""Labels that people gave: which rows count, how their images are seen, and that no test image trains."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from scones.dataset.accepted import parse_accepted_labels, take_accepted_images
from scones.dataset.errors import BadInputError
from scones.images import pictures
from tests.support.fake_aws import FakeS3, store

CLASSES = ["bicycle", "motorcycle"]


def saved(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def accepted(**images: bytes) -> list[np.ndarray]:
    s3 = FakeS3()
    s3.objects = {f"inbox/{name}.png": body for name, body in images.items()}
    rows = "".join(f"{key},bicycle\n" for key in s3.objects)
    s3.objects["labels/accepted.csv"] = f"key,label\n{rows}".encode()
    return [image.pixels.transpose(1, 2, 0) for image in take_accepted_images(store(client=s3), CLASSES)]


@pytest.fixture
def photo() -> Image.Image:
    grid = np.random.default_rng(0).integers(0, 256, (9, 16)).astype(np.uint8)
    return Image.fromarray(np.repeat(np.repeat(grid, 10, axis=0), 10, axis=1)).convert("RGB")


def test_a_photo_trains_as_it_is_served(photo: Image.Image) -> None:
    """The whole of a wide one, a turned one upright."""
    (plain,) = accepted(wide=saved(photo))
    np.testing.assert_array_equal(plain, pictures.decode(saved(photo), pictures.Geometry(32, 32)))
    assert abs(int(plain[:, 0].mean()) - int(np.asarray(photo)[:, :5].mean())) < 12  # the edge is still there
    exif = Image.Exif()
    exif[0x0112] = 6
    (turned,) = accepted(turned=saved(photo.transpose(Image.Transpose.ROTATE_90), exif=exif))
    np.testing.assert_array_equal(turned, plain)


def test_a_16_bit_picture_is_not_white(photo: Image.Image) -> None:
    grey = np.asarray(photo.convert("L"))
    deep = Image.fromarray(grey.astype(np.uint16) * 257)
    eight, sixteen = accepted(eight=saved(Image.fromarray(grey)), sixteen=saved(deep))
    np.testing.assert_array_equal(eight, sixteen)


def test_one_unusable_image_costs_its_own_row(photo: Image.Image, caplog: pytest.LogCaptureFixture) -> None:
    good, broken = saved(photo), b"no image"
    assert len(accepted(good=good, broken=broken, cut=good[:200], huge=bytes(pictures.MOST_BYTES + 1))) == 1
    assert caplog.text.count("left out") == 3


def test_an_archived_photograph_waits_for_its_restoration(photo: Image.Image, caplog: pytest.LogCaptureFixture) -> None:
    s3 = FakeS3()
    s3.objects = {"inbox/cold.png": saved(photo), "inbox/own.png": saved(photo)}
    s3.archived.add("inbox/cold.png")
    s3.objects["labels/accepted.csv"] = b"key,label\ninbox/cold.png,bicycle\ninbox/own.png,bicycle\n"
    assert [image.key for image in take_accepted_images(store(client=s3), CLASSES)] == ["inbox/own.png"]
    assert "inbox/cold.png is archived: restore it first" in caplog.text


@pytest.mark.parametrize(
    ("key", "origin"),
    [
        ("datasets/ds-1/test/a.png", ""),
        ("traffic/t-1/night/a.png", ""),
        ("inbox/a.png", "datasets/ds-1/test/a.png"),
        ("inbox/a.png", "traffic/t-1/night/a.png"),
    ],
)
def test_what_shows_a_test_image_never_trains(
    key: str, origin: str, photo: Image.Image, caplog: pytest.LogCaptureFixture
) -> None:
    s3 = FakeS3()
    s3.objects = {key: saved(photo), "inbox/own.png": saved(photo)}
    s3.objects["labels/accepted.csv"] = f"key,label\n{key},bicycle\ninbox/own.png,bicycle\n".encode()
    if origin:
        s3.metadata[key] = {"scones-origin": origin}
    assert [image.key for image in take_accepted_images(store(client=s3), CLASSES)] == ["inbox/own.png"]
    assert f"test image {origin or key}" in caplog.text


def test_the_table_is_read() -> None:
    content = b"\xef\xbb\xbfkey,label\na/1.png,bicycle\na/2.png,bus\na/1.png,motorcycle\n\n"
    assert parse_accepted_labels(content, CLASSES) == ([("a/1.png", "motorcycle")], [])


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
@pytest.mark.parametrize("delimiter", [";", "\t", ","])
def test_a_table_that_a_spreadsheet_saved_is_read(encoding: str, delimiter: str) -> None:
    rows = [" Key ", "LABEL"], ["a/\u00fc 1.png", "bicycle"], ["a.png", "motorcycle", "an unquoted comma"]
    content = "".join(delimiter.join(row) + "\r\n" for row in rows).encode(encoding)
    found, problems = parse_accepted_labels(content, CLASSES)
    assert found == [("a/\u00fc 1.png", "bicycle")]
    assert problems == ["labels/accepted.csv line 3 has 3 cells for 2 columns: quote its text."]


def test_bad_rows_are_named() -> None:
    content = b"when,key,label\n1,,bicycle\n2,a.png,\n3," + b"k" * 1025 + b",bicycle\n5,good.png,bicycle\n"
    rows, problems = parse_accepted_labels(content, CLASSES)
    assert rows == [("good.png", "bicycle")]
    assert [problem.split(":")[0] for problem in problems] == [
        f"labels/accepted.csv line {number}" for number in (2, 3, 4)
    ]


def test_keys_are_taken_as_they_are() -> None:
    content = b'key,label\n" k/lead.png ", bicycle \n"c\x07\r.png",bicycle\n../b.png,bicycle\n'
    assert parse_accepted_labels(content, CLASSES) == (
        [(" k/lead.png ", "bicycle"), ("c\x07\r.png", "bicycle"), ("../b.png", "bicycle")],
        [],
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"key,label\na\xff,bicycle", "neither UTF-8 nor UTF-16"),
        (b"name,class\nx,y\n", "needs one column named key and one named label"),
        (b"key,label\n" + b"a.png,bicycle\n" * 10_001, "more than 10,000"),
        (b"key,label\na.png," + b"b" * 200_000 + b"\n", "line 2 is not CSV"),
    ],
)
def test_a_bad_table_is_an_error(content: bytes, message: str) -> None:
    with pytest.raises(BadInputError, match=message):
        parse_accepted_labels(content, CLASSES)


def test_an_empty_table_is_none() -> None:
    assert parse_accepted_labels(b"", CLASSES) == ([], [])
