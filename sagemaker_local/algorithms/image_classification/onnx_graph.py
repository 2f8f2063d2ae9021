"""EfficientNet-Lite0 as an ONNX graph that ends in averages of its seven stages; batch norms are folded in.

ONNX is a protocol buffer; the few messages needed are written by hand, which spares a package. Field numbers:
onnx.proto. Architecture: Tan and Le, "EfficientNet", 2019; Lite: no squeeze-and-excitation, ReLU6 for swish.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from sagemaker_local.algorithms.image_classification.scattering import Array

# Of each stage: blocks, stride of the first. Kernels and channels are the tensors' own.
_STAGES = ((1, 1), (2, 2), (2, 2), (3, 2), (3, 1), (4, 2), (1, 1))
_EPSILON = 1e-3
_FLOAT, _INT_ATTRIBUTE, _TEXT_ATTRIBUTE, _INTS_ATTRIBUTE = 1, 2, 3, 7


def _varint(value: int) -> bytes:
    result = bytearray()
    while value > 0x7F:
        result.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*result, value])


def _field(number: int, value: int | str | bytes) -> bytes:
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    content = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _message(*fields: tuple[int, int | str | bytes]) -> bytes:
    return b"".join(_field(*field) for field in fields)


def _tensor(name: str, values: Array) -> bytes:
    content = np.ascontiguousarray(values, dtype="<f4")
    return _message(*((1, side) for side in values.shape), (2, _FLOAT), (8, name), (9, content.tobytes()))


def _attribute(name: str, value: int | str | Sequence[int]) -> bytes:
    if isinstance(value, str):
        return _message((1, name), (4, value), (20, _TEXT_ATTRIBUTE))
    if isinstance(value, int):
        return _message((1, name), (3, value), (20, _INT_ATTRIBUTE))
    return _message((1, name), *((8, number) for number in value), (20, _INTS_ATTRIBUTE))


def _value(name: str, *sides: int | str) -> bytes:
    """A float tensor's name and shape; a side that is a text may have any length."""
    shape = _message(*((1, _message((1 if isinstance(side, int) else 2, side))) for side in sides))
    return _message((1, name), (2, _message((1, _message((1, _FLOAT), (2, shape))))))


class _Graph:
    def __init__(self, tensors: Mapping[str, Array]) -> None:
        self.tensors = tensors
        self.nodes: list[bytes] = []
        self.constants = [_tensor("zero", np.array(0.0)), _tensor("six", np.array(6.0))]

    def node(self, kind: str, inputs: Sequence[str], **attributes: int | str | Sequence[int]) -> str:
        """Add a node; the name of what it gives."""
        result = f"{kind}{len(self.nodes)}"
        listed = [(5, _attribute(name, value)) for name, value in attributes.items()]
        self.nodes.append(_message(*((1, name) for name in inputs), (2, result), (4, kind), *listed))
        return result

    def convolve(
        self, given: str, name: str, norm: str, *, stride: int = 1, deep: bool = False, bend: bool = True
    ) -> str:
        """A convolution with its batch norm, `deep` for one that keeps channels apart, `bend` for ReLU6 behind it."""
        kernel = self.tensors[f"{name}.weight"]
        factor = self.tensors[f"{norm}.weight"] / np.sqrt(self.tensors[f"{norm}.running_var"] + _EPSILON)
        shift = self.tensors[f"{norm}.bias"] - self.tensors[f"{norm}.running_mean"] * factor
        self.constants += [_tensor(name, kernel * factor[:, None, None, None]), _tensor(norm + name, shift)]
        result = self.node(
            "Conv", [given, name, norm + name],
            auto_pad="SAME_UPPER", strides=[stride, stride], group=len(kernel) if deep else 1,
        )  # fmt: skip
        return self.node("Clip", [result, "zero", "six"]) if bend else result

    def block(self, given: str, number: int, stride: int) -> str:
        """An inverted bottleneck: wider, deep, narrower; added to what it was given where both have one shape."""
        name = f"_blocks.{number}"
        wide = given
        if f"{name}._expand_conv.weight" in self.tensors:
            wide = self.convolve(given, f"{name}._expand_conv", f"{name}._bn0")
        deep = self.convolve(wide, f"{name}._depthwise_conv", f"{name}._bn1", stride=stride, deep=True)
        return self.convolve(deep, f"{name}._project_conv", f"{name}._bn2", bend=False)


def network_graph(tensors: Mapping[str, Array]) -> bytes:
    """An ONNX model from `pictures` (n, 3, side, side), values about -1 to 1, to `features` (n, 784)."""
    graph = _Graph(tensors)
    current = graph.convolve("pictures", "_conv_stem", "_bn0", stride=2)
    averages, number = [], 0
    for blocks, stride in _STAGES:
        for place in range(blocks):
            made = graph.block(current, number, stride if place == 0 else 1)
            current = made if place == 0 else graph.node("Add", [made, current])
            number += 1
        averages.append(graph.node("GlobalAveragePool", [current]))
    joined = graph.node("Concat", averages, axis=1)
    graph.nodes.append(_message((1, joined), (2, "features"), (4, "Flatten")))
    content = _message(
        *((1, node) for node in graph.nodes),
        (2, "efficientnet-lite0"),
        *((5, constant) for constant in graph.constants),
        (11, _value("pictures", "n", 3, "side", "side")),
        (12, _value("features", "n", "features")),
    )
    return _message((1, 8), (7, content), (8, _message((2, 13))))  # format 8, operators of version 13
