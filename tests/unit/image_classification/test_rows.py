"""Rows of numbers in a file: whole, in any order, from several threads, and nothing that is not there."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sagemaker_local.algorithms.image_classification.rows import Rows


@given(st.lists(st.integers(0, 9), max_size=30))
def test_rows_come_back_in_the_order_asked_for(tmp_path_factory: pytest.TempPathFactory, wanted: list[int]) -> None:
    values = np.arange(60, dtype=np.float32).reshape(10, 2, 3)
    rows = Rows(tmp_path_factory.mktemp("rows") / "values", (2, 3), np.float32)
    rows.append(values[:4])
    rows.append(values[:0])
    rows.append(values[4:][:, :, ::-1][:, :, ::-1])  # not in one piece in memory
    assert len(rows) == 10
    read = rows[np.array(wanted, dtype=int)]
    assert read.dtype == np.float32
    assert np.array_equal(read, values[wanted])
    rows.close()


def test_threads_read_at_the_same_time(tmp_path: Path) -> None:
    rows = Rows(tmp_path / "values", (1000,), np.uint8)
    rows.append(np.repeat(np.arange(200, dtype=np.uint8)[:, None], 1000, axis=1))
    with ThreadPoolExecutor(4) as pool:
        read = list(pool.map(lambda n: rows[np.array([n, 199 - n])], range(200)))
    assert all((part[0] == n).all() and (part[1] == 199 - n).all() for n, part in enumerate(read))


@pytest.mark.parametrize("wanted", [[-1], [3], [0, 4]])
def test_a_row_that_is_not_there_is_refused(tmp_path: Path, wanted: list[int]) -> None:
    rows = Rows(tmp_path / "values", (2,), np.float32)
    rows.append(np.zeros((3, 2), np.float32))
    with pytest.raises(IndexError, match="of 3"):
        rows[np.array(wanted)]


def test_rows_of_another_shape_are_refused(tmp_path: Path) -> None:
    rows = Rows(tmp_path / "values", (2,), np.float32)
    with pytest.raises(ValueError, match=r"\(3,\) instead of \(2,\)"):
        rows.append(np.zeros((1, 3), np.float32))


def test_a_file_cut_short_is_noticed(tmp_path: Path) -> None:
    rows = Rows(tmp_path / "values", (2,), np.float32)
    rows.append(np.zeros((3, 2), np.float32))
    (tmp_path / "values").write_bytes(b"")
    with pytest.raises(OSError, match="shorter than its 3 rows"):
        rows[np.array([0])]
