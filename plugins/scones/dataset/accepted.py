"""The images that people labelled: extra training images, unless a test image is behind them."""

from __future__ import annotations

import io
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from scones.aws import layout
from scones.aws.store import ObjectStore, UnreadableObjectError
from scones.batch.inputs import KEY_BYTES_MAX, BatchInputError, open_text, read_table, text_lines
from scones.batch.labels import ACCEPTED_COLUMNS
from scones.dataset.build import AcceptedImage
from scones.dataset.cifar import IMAGE_SHAPE
from scones.dataset.errors import BadInputError
from scones.images.pictures import MOST_BYTES, Geometry, PictureError, decode

log = logging.getLogger(__name__)
MAX_ACCEPTED_LABELS = 10_000
_THREADS = 8


def take_accepted_images(store: ObjectStore, classes: Sequence[str]) -> list[AcceptedImage]:
    """The images of `layout.ACCEPTED_LABELS` at the dataset's size, as the model will be shown them.

    What was read is noted as `layout.TAKEN_LABELS`: those labels ask for no further training.

    A row whose image is gone, unreadable or made from a test image is left out with a warning: one bad label must not
    stop the training, and a test image that trains would make every figure a lie.
    """
    table = store.read(layout.ACCEPTED_LABELS, at_most=MOST_BYTES)
    if table is None:
        return []
    rows, problems = parse_accepted_labels(table, classes)
    geometry = Geometry(*IMAGE_SHAPE[1:])

    def load(row: tuple[str, str]) -> AcceptedImage | str:
        key, label = row
        if origin := layout.test_image_behind(key, store.metadata(key)):
            return f"{key} shows the test image {origin}, and test images never train"
        try:
            body = store.read(key, at_most=MOST_BYTES)
            if body is None:
                return f"{store.uri(key)} does not exist any more"
            return AcceptedImage(decode(body, geometry).transpose(2, 0, 1), label, key)
        except UnreadableObjectError as error:
            return str(error)
        except PictureError as error:
            return f"{key} {error}"

    with ThreadPoolExecutor(_THREADS) as pool:
        loaded = list(pool.map(load, rows))
    for problem in [*problems, *(item for item in loaded if isinstance(item, str))]:
        log.warning("Accepted label left out: %s", problem)
    images = [item for item in loaded if isinstance(item, AcceptedImage)]
    log.info("%d accepted labels are added to the training images", len(images))
    store.write(layout.TAKEN_LABELS, table, "text/csv")
    return images


def parse_accepted_labels(content: bytes, classes: Sequence[str]) -> tuple[list[tuple[str, str]], list[str]]:
    """Rows (S3 key, class name) of ``labels/accepted.csv`` and one message per row that is not usable.

    The file is written by people and by the review page: it is read as hostile. The last row of a key wins. Labels of
    other classes are left out without a message (another model may use them).

    Raises:
        BadInputError: it is no CSV with the columns key and label, or has more than 10,000 rows.
    """
    name, rows, problems = layout.ACCEPTED_LABELS, dict[str, str](), list[str]()
    if not content.strip():
        return [], []
    try:
        lines = text_lines(open_text(io.BytesIO(content), name), name)
        for number, (where, row) in enumerate(read_table(lines, name, ACCEPTED_COLUMNS, problems), start=1):
            key, label = row["key"], row.get("label", "").strip()
            if number > MAX_ACCEPTED_LABELS:
                raise BadInputError(f"{name} has more than {MAX_ACCEPTED_LABELS:,} rows.")
            if not key or len(key.encode()) > KEY_BYTES_MAX:
                problems.append(f"{where}: {key!r:.80} is not an S3 key")
            elif not label:
                problems.append(f"{where}: no label for {key!r:.80}")
            else:
                rows.pop(key, None)
                rows[key] = label
    except BatchInputError as error:
        raise BadInputError(str(error)) from error
    return [(key, label) for key, label in rows.items() if label in classes], problems
