"""From untrusted image bytes to a picture as a person sees it: upright, in RGB, of the size asked for.

One way to see an image, for training, serving, monitoring and whatever is shown. The local algorithm and the plugins
each have this file, since a container shares no code with what calls it; a contract test holds both against the same
images, bit for bit.
"""

import io
import re
import struct
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

# What an endpoint takes and more; above it nothing is decoded, whatever the file is.
MOST_BYTES = 20 * 1024 * 1024
MOST_PIXELS = 40_000_000
MOST_SIDE = 30_000  # a picture of one row needs memory out of all proportion to its pixels

Pixels = np.ndarray[Any, np.dtype[np.uint8]]

_BROKEN = (
    OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, OverflowError, MemoryError,
    struct.error, zlib.error, Image.DecompressionBombError,
)  # fmt: skip
_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_PNG_HEAD = b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR"
_PLAIN_HEAD_BYTES = 33
_PLAIN_MODES = {0: "L", 2: "RGB", 6: "RGBA"}
_END = b"\xff\xd9"
# A marker within a JPEG's scan that ends it: neither a stuffed byte nor a restart nor filling.
_SCAN_ENDS = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")


class PictureError(ValueError):
    """The bytes are not a picture that is taken; the message reads on from the picture's name: "is empty"."""


@dataclass(frozen=True)
class Geometry:
    """How a picture is brought to `height` x `width` pixels.

    With `resize`, the shorter side is scaled to it and the middle is taken (as SageMaker's built-in algorithm does);
    without, the whole picture is scaled, whatever its proportions.
    """

    height: int
    width: int
    resize: int | None = None

    def box(self, width: int, height: int) -> tuple[float, float, float, float]:
        """The part of a `width` x `height` picture that is kept: left, upper, right, lower in its own pixels."""
        if self.resize is None:
            return 0.0, 0.0, float(width), float(height)
        scale = min(width, height) / self.resize
        kept_width, kept_height = min(self.width * scale, width), min(self.height * scale, height)
        left, upper = (width - kept_width) / 2, (height - kept_height) / 2
        return left, upper, left + kept_width, upper + kept_height


def decode(content: bytes, geometry: Geometry) -> Pixels:
    """Pixels (height, width, 3) of a PNG or JPEG.

    Raises:
        PictureError: not a PNG or JPEG, damaged, or beyond MOST_BYTES, MOST_PIXELS or MOST_SIDE.
    """
    return decode_sized(content, geometry)[0]


def decode_sized(content: bytes, geometry: Geometry) -> tuple[Pixels, tuple[int, int]]:
    """As `decode`, with the picture's true width and height."""
    size = (geometry.width, geometry.height)
    if geometry.box(*size) == (0.0, 0.0, *map(float, size)) and (plain := _plain_png(content, size)) is not None:
        return plain, size
    image, true_size = upright(content, geometry.resize or max(size))
    box = geometry.box(*image.size)
    if image.size != size or box != (0.0, 0.0, *map(float, size)):
        image = image.resize(size, Image.Resampling.BILINEAR, box=box, reducing_gap=3.0)
    return np.asarray(image, dtype=np.uint8), true_size


def _plain_png(content: bytes, size: tuple[int, int]) -> Pixels | None:
    """The plainest PNG (grey, RGB or RGBA of 8 bits, not interlaced, no notes, of this size); None for any other.

    Three times as fast as `Image.open`, which matters for a hundred thousand small images. What is unusual or
    damaged is left to `upright`, which knows better or says why.
    """
    if content[:16] != _PNG_HEAD or len(content) < 57 or len(content) > MOST_BYTES:
        return None
    *claimed, depth, colour, _, _, interlaced = struct.unpack_from(">IIBBBBB", content, 16)
    mode = _PLAIN_MODES.get(colour)
    if (*claimed, depth, interlaced) != (*size, 8, 0) or mode is None:
        return None
    position, parts = 8, []
    while position + 12 <= len(content):
        length, kind = struct.unpack_from(">I4s", content, position)
        body = content[position + 8 : position + 8 + length]
        position += 12 + length
        if kind == b"IEND":
            break
        if zlib.crc32(body, zlib.crc32(kind)) != int.from_bytes(content[position - 4 : position]):
            return None
        if kind == b"IDAT":
            parts.append(body)
        elif position != _PLAIN_HEAD_BYTES:
            return None
    try:
        image = Image.frombytes(mode, size, b"".join(parts), "zip", mode, False)
    except _BROKEN:
        return None
    packed = image.tobytes("raw", "L" if mode == "L" else "RGB")
    pixels = np.frombuffer(packed, np.uint8).reshape(size[1], size[0], -1)
    return np.repeat(pixels, 3, axis=2) if mode == "L" else pixels


def upright(content: bytes, side: int) -> tuple[Image.Image, tuple[int, int]]:
    """The picture in RGB as it is meant to be seen, and its true width and height.

    A JPEG is decoded at a fraction of its size where at least twice `side` pixels are left each way. Alpha is dropped,
    not blended; of 16 bits the upper eight count; an orientation in the file's EXIF data is applied.

    Raises:
        PictureError: as for `decode`.
    """
    if not content:
        raise PictureError("is empty; expected a PNG or JPEG image")
    if len(content) > MOST_BYTES:
        raise PictureError(f"has {len(content)} bytes; at most {MOST_BYTES} are read")
    try:
        image: Image.Image = Image.open(io.BytesIO(content), formats=("PNG", "JPEG"))
        width, height = image.size
        if width * height > MOST_PIXELS or max(width, height) > MOST_SIDE:
            raise PictureError(
                f"is {width} x {height} pixels; at most {MOST_PIXELS} in all and {MOST_SIDE} a side are decoded"
            )
        kind = image.format
        _load(image, side)
        if kind == "JPEG" and _ends_grey(image) and _lacks_data(content, image, side):
            raise PictureError("is damaged: its data end before the picture does")
        turn = _orientation(image)
        image = _to_rgb(image)
    except PictureError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise PictureError(f"is too large: at most {MOST_PIXELS} pixels are decoded") from error
    except _BROKEN as error:
        if not content.startswith((b"\x89PNG\r\n\x1a\n", b"\xff\xd8")):
            raise PictureError("is not a PNG or JPEG image") from error
        reason = str(error).partition(" <")[0][:160]  # "... file <_io.BytesIO object at 0x...>" says nothing more
        raise PictureError(f"is truncated or corrupt: {reason}") from error
    if turn in _TURNS:
        image = image.transpose(_TURNS[turn])
    return image, (height, width) if turn in (5, 6, 7, 8) else (width, height)


def _load(image: Image.Image, side: int) -> None:
    image.draft(None, (2 * side, 2 * side))  # does nothing to a PNG
    image.load()


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except _BROKEN:  # damaged notes beside an undamaged picture
        return 1


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits a sample: convert("RGB") would clip at 255
        return Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.mode == "P" and "transparency" in image.info:
        return image.convert("RGBA").convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _ends_grey(image: Image.Image) -> bool:
    """Whether the last pixel is what libjpeg puts where data are missing; it says nothing of it."""
    last = image.getpixel((image.width - 1, image.height - 1))
    return all(value in (127, 128) for value in (last if isinstance(last, tuple) else (last,)))


def _lacks_data(content: bytes, image: Image.Image, side: int) -> bool:
    """Whether more data at the end of the last scan change the picture: of a whole one they would be left over."""
    end = 2
    while content[end : end + 2] != _END:
        (length,) = struct.unpack_from(">H", content, end + 2)
        scan = content[end + 1] == 0xDA
        end += 2 + length
        if scan:
            found = _SCAN_ENDS.search(content, end)
            if found is None:
                return True
            end = found.start()
    more = Image.open(io.BytesIO(content[:end] + bytes(range(1, 255)) + _END), formats=("JPEG",))
    _load(more, side)
    return more.tobytes() != image.tobytes()
