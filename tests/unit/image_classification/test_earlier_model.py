"""An archive in the channel `model` that is damaged is told of in words."""

import gzip
import tarfile
import zlib
from pathlib import Path

import pytest

from sagemaker_local.algorithms.image_classification.errors import AlgorithmError
from sagemaker_local.algorithms.image_classification.hyperparameters import read_hyperparameters
from sagemaker_local.algorithms.image_classification.model import PARAMETERS
from sagemaker_local.algorithms.image_classification.paths import ContainerPaths
from sagemaker_local.algorithms.image_classification.train import _earlier_model


def test_an_archive_whose_data_are_damaged_is_told_of(tmp_path: Path) -> None:
    member = tarfile.TarInfo(PARAMETERS)
    member.size = 2_000_000
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    # So much that the damage is not met yet when the header is read.
    whole = packer.compress(member.tobuf() + bytes(1_000_000)) + packer.flush(zlib.Z_FULL_FLUSH)
    folder = tmp_path / "input" / "data" / "model"
    folder.mkdir(parents=True)
    (folder / "model.tar.gz").write_bytes(gzip.compress(b"")[:10] + whole + b"\xff" * 999)
    chosen = read_hyperparameters({"num_classes": "3", "num_training_samples": "9", "image_shape": "3,32,32"})
    with pytest.raises(AlgorithmError, match=r"model\.tar\.gz cannot be unpacked"):
        _earlier_model(ContainerPaths(tmp_path), {"model": {}}, chosen)
