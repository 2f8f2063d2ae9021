"""What the drawn sample's classes look like: parts in object coordinates, drawn for a whole batch of images at once.

x grows to the right and y down; an object fills about -1..1. A part is (kind, numbers, colour):

    ring x y radius width   disc x y radius   oval x y half-width half-height
    line x0 y0 x1 y1 width  box x y half-width half-height
"""

from __future__ import annotations

import zlib

import numpy as np

Part = tuple[str, tuple[float, ...], str]


def _wheels(*places: tuple[float, float], y: float = 0.55) -> list[Part]:
    parts: list[Part] = []
    for x, radius in places:
        parts += [("disc", (x, y, radius), "tyre"), ("disc", (x, y, radius * 0.45), "metal")]
    return parts


VEHICLES: dict[str, list[Part]] = {
    "bicycle": [
        ("ring", (-0.55, 0.35, 0.4, 0.045), "tyre"),
        ("ring", (0.55, 0.35, 0.4, 0.045), "tyre"),
        ("line", (-0.55, 0.35, -0.2, -0.2, 0.04), "main"),
        ("line", (-0.2, -0.2, 0.38, -0.22, 0.045), "main"),
        ("line", (-0.05, 0.35, 0.38, -0.22, 0.045), "main"),
        ("line", (-0.05, 0.35, -0.24, -0.32, 0.04), "main"),
        ("line", (-0.55, 0.35, -0.05, 0.35, 0.04), "main"),
        ("line", (0.55, 0.35, 0.34, -0.42, 0.04), "metal"),
        ("line", (-0.36, -0.36, -0.12, -0.36, 0.06), "dark"),
        ("line", (0.2, -0.46, 0.46, -0.42, 0.045), "dark"),
    ],
    "motorcycle": [
        ("ring", (-0.6, 0.38, 0.3, 0.1), "tyre"),
        ("ring", (0.6, 0.38, 0.3, 0.1), "tyre"),
        ("disc", (-0.6, 0.38, 0.12), "metal"),
        ("disc", (0.6, 0.38, 0.12), "metal"),
        ("box", (-0.02, 0.25, 0.26, 0.2), "metal"),
        ("oval", (0.12, -0.08, 0.34, 0.18), "main"),
        ("line", (-0.75, -0.1, -0.1, -0.05, 0.12), "dark"),
        ("line", (0.6, 0.38, 0.4, -0.3, 0.07), "metal"),
        ("line", (-0.1, 0.45, -0.85, 0.42, 0.06), "light"),
        ("line", (0.22, -0.42, 0.46, -0.34, 0.06), "dark"),
        ("disc", (0.52, -0.16, 0.11), "light"),
    ],
    "bus": [
        ("box", (0, -0.05, 0.95, 0.5), "main"),
        *[("box", (x, -0.25, 0.13, 0.16), "glass") for x in (-0.7, -0.36, -0.02, 0.32, 0.68)],
        ("box", (0, 0.2, 0.95, 0.06), "second"),
        *_wheels((-0.55, 0.2), (0.55, 0.2), y=0.5),
    ],
    "pickup_truck": [
        ("box", (0, 0.2, 0.95, 0.2), "main"),
        ("box", (0.12, -0.12, 0.33, 0.22), "main"),
        ("box", (0.14, -0.12, 0.24, 0.13), "glass"),
        ("box", (-0.6, -0.02, 0.34, 0.05), "dark"),
        ("disc", (0.9, 0.18, 0.07), "light"),
        *_wheels((-0.55, 0.24), (0.58, 0.24), y=0.45),
    ],
    "train": [
        ("box", (-0.1, -0.1, 0.85, 0.35), "main"),
        ("oval", (0.7, -0.05, 0.3, 0.3), "main"),
        ("box", (-0.1, -0.2, 0.75, 0.1), "glass"),
        ("line", (-1.2, 0.5, 1.2, 0.5, 0.05), "metal"),
        *[("disc", (x, 0.36, 0.12), "tyre") for x in (-0.75, -0.5, 0.3, 0.55)],
        ("box", (-0.1, 0.1, 0.85, 0.05), "second"),
    ],
    "lawn_mower": [
        ("box", (0.2, 0.3, 0.5, 0.16), "main"),
        ("box", (0.2, 0.08, 0.24, 0.14), "dark"),
        ("line", (-0.25, 0.2, -0.85, -0.75, 0.05), "metal"),
        ("line", (-0.95, -0.75, -0.7, -0.8, 0.06), "dark"),
        *_wheels((-0.2, 0.17), (0.6, 0.17)),
    ],
    "rocket": [
        ("oval", (0, -0.15, 0.2, 0.85), "light"),
        ("box", (0, 0.2, 0.19, 0.4), "light"),
        ("line", (-0.2, 0.4, -0.42, 0.75, 0.09), "main"),
        ("line", (0.2, 0.4, 0.42, 0.75, 0.09), "main"),
        ("disc", (0, -0.35, 0.11), "glass"),
        ("oval", (0, 0.85, 0.16, 0.3), "second"),
    ],
    "streetcar": [
        ("box", (0, 0, 0.9, 0.45), "main"),
        ("box", (0, -0.5, 0.75, 0.08), "second"),
        *[("box", (x, -0.15, 0.17, 0.18), "glass") for x in (-0.6, -0.2, 0.2, 0.6)],
        ("line", (-0.1, -0.55, 0.3, -1.0, 0.04), "metal"),
        ("line", (-1.2, -1.0, 1.2, -1.0, 0.03), "dark"),
        ("line", (-1.2, 0.6, 1.2, 0.6, 0.04), "metal"),
        ("box", (0, 0.48, 0.5, 0.08), "tyre"),
    ],
    "tank": [
        ("oval", (0, 0.4, 0.95, 0.24), "tyre"),
        *[("disc", (x, 0.4, 0.13), "metal") for x in (-0.6, -0.3, 0, 0.3, 0.6)],
        ("box", (0, 0.12, 0.8, 0.14), "olive"),
        ("oval", (-0.1, -0.12, 0.42, 0.22), "olive"),
        ("line", (0.2, -0.15, 1.1, -0.25, 0.05), "olive"),
    ],
    "tractor": [
        ("box", (0.3, 0.1, 0.5, 0.17), "main"),
        ("box", (-0.3, -0.25, 0.28, 0.36), "main"),
        ("box", (-0.3, -0.32, 0.2, 0.2), "glass"),
        ("line", (0.5, -0.05, 0.5, -0.5, 0.045), "dark"),
        *_wheels((-0.4, 0.46), y=0.35),
        *_wheels((0.6, 0.24), y=0.55),
    ],
}
_KINDS = ("disc", "oval", "box", "line", "ring")
_COLOURS = ("main", "second", "light", "dark", "tyre", "glass")


def parts_of(name: str) -> list[Part]:
    """The parts of a class. Classes without a drawing of their own get a figure that follows from their name: no animal
    anyone would recognise, but the same figure each time and unlike the others', which is what a model needs."""
    if name in VEHICLES:
        return VEHICLES[name]
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    parts: list[Part] = []
    for _ in range(5):
        kind, colour = str(rng.choice(_KINDS)), str(rng.choice(_COLOURS))
        x, y = rng.uniform(-0.6, 0.6, 2).tolist()
        a, b = rng.uniform(0.15, 0.55, 2).tolist()
        angle = float(rng.uniform(0, 6.28))
        numbers = {
            "disc": (x, y, a),
            "oval": (x, y, a, b),
            "box": (x, y, a, b),
            "ring": (x, y, a, 0.08),
            "line": (x, y, x + 1.2 * float(np.cos(angle)) * a, y + 1.2 * float(np.sin(angle)) * a, 0.09),
        }[kind]
        parts.append((kind, numbers, colour))
    return parts


def distance(kind: str, numbers: list[np.ndarray], x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Signed distance (object units, negative inside) of points (N, H, W) to a part with numbers of shape (N, 1, 1)."""
    cx, cy = x - numbers[0], y - numbers[1]
    if kind == "disc":
        return np.hypot(cx, cy) - numbers[2]
    if kind == "ring":
        return np.abs(np.hypot(cx, cy) - numbers[2]) - numbers[3]
    if kind == "oval":
        return (np.hypot(cx / numbers[2], cy / numbers[3]) - 1) * np.minimum(numbers[2], numbers[3])
    if kind == "box":
        return np.maximum(np.abs(cx) - numbers[2], np.abs(cy) - numbers[3])
    if kind == "line":
        dx, dy = numbers[2] - numbers[0], numbers[3] - numbers[1]
        along = np.clip((cx * dx + cy * dy) / np.maximum(dx * dx + dy * dy, 1e-9), 0, 1)
        return np.hypot(cx - along * dx, cy - along * dy) - numbers[4]
    raise ValueError(f"no part is called {kind!r}")
