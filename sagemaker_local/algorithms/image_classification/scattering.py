"""Wavelet scattering on a small canvas: averages of wavelet moduli, stable under small shifts and deformations.

First order: |x * psi_(scale, angle)|, second order: ||x * psi_1| * psi_2| for coarser psi_2, each averaged by Gaussian
windows on a grid. Filters are Morlet wavelets applied by FFT; after a filter of scale j the signal is kept on every
2^j-th pixel alone. Source: Bruna and Mallat, "Invariant Scattering Convolution Networks", 2013.
"""

from typing import Any

import numpy as np
import scipy.fft

Array = np.ndarray[Any, np.dtype[Any]]


def _morlet(size: int, scale: int, angle: float, slant: float) -> Array:
    """Real Fourier transform of a Morlet wavelet at 2^scale, periodic over `size` pixels."""
    sigma, frequency = 0.8 * 2**scale, 0.75 * np.pi / 2**scale
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    curve = turn @ np.diag([1.0, slant**2]) @ turn.T / (2 * sigma**2)
    axis = np.arange(-2 * size, 3 * size)
    y, x = np.meshgrid(axis, axis, indexing="ij")
    envelope = np.exp(-(curve[0, 0] * x * x + 2 * curve[0, 1] * x * y + curve[1, 1] * y * y))
    wave = envelope * np.exp(1j * frequency * (x * np.cos(angle) + y * np.sin(angle)))
    envelope, wave = (part.reshape(5, size, 5, size).sum(axis=(0, 2)) for part in (envelope, wave))
    wavelet = (wave - wave.sum() / envelope.sum() * envelope) * slant / (2 * np.pi * sigma**2)
    return scipy.fft.fft2(wavelet).real.astype(np.float32)


def _fold(spectrum: Array, factor: int) -> Array:
    """Spectrum of the signal kept on every `factor`-th pixel."""
    if factor == 1:
        return spectrum
    side = spectrum.shape[-1] // factor
    parts = spectrum.reshape(*spectrum.shape[:-2], factor, side, factor, side)
    return parts.mean(axis=(-4, -2), dtype=spectrum.dtype)


def _filtered(spectrum: Array, filters: Array, factor: int) -> Array:
    """Sum over the aliases of spectrum * filters once only every `factor`-th pixel is kept.

    Block by block, as no large product need be stored: a third of the time.
    """
    side = spectrum.shape[-1] // factor
    blocks = [
        (..., slice(row * side, (row + 1) * side), slice(column * side, (column + 1) * side))
        for row in range(factor)
        for column in range(factor)
    ]
    result = spectrum[blocks[0]] * filters[blocks[0]]
    for block in blocks[1:]:
        result += spectrum[block] * filters[block]
    return result


def windows(size: int, grid: int, step: int, pad: float, canvas: int) -> Array:
    """Averaging weights (size * size, grid * grid): Gaussians centred on a grid over the unpadded canvas."""
    centres = pad + (np.arange(grid) + 0.5) * canvas / grid - 0.5
    width = canvas / grid / 2
    weights = np.exp(-((np.arange(size)[None, :] * step - centres[:, None]) ** 2) / (2 * width**2))
    weights /= weights.sum(axis=1, keepdims=True)
    return np.einsum("ay,bx->yxab", weights, weights).reshape(size * size, grid * grid).astype(np.float32)


class Scattering:
    """Scattering features of one-channel canvases.

    Args:
        canvas: side of the square input, in pixels.
        scales: number of octaves.
        angles: orientations over half a turn; even.
        grid: side of the grid of averages.
        pad: mirrored border, in pixels.
    """

    def __init__(self, canvas: int, scales: int, angles: int, grid: int, pad: int) -> None:
        self.canvas, self.scales, self.angles, self.grid, self.pad = canvas, scales, angles, grid, pad
        side = canvas + 2 * pad
        turns = [np.pi * angle / angles for angle in range(angles)]
        plain = [np.array([_morlet(side, scale, turn, 4 / angles) for turn in turns]) for scale in range(scales)]
        # Dropping pixels averages the aliases of a spectrum: the filters carry the 1 / factor^2 of that.
        self._filters = [filters / np.float32(4**scale) for scale, filters in enumerate(plain)]
        self._windows = [windows(side >> scale, grid, 2**scale, pad, canvas) for scale in range(scales)]
        # A filter on the signal kept on every 2^j-th pixel: its own spectrum, folded (aliases are below 1e-3).
        self._inner = {
            (first, second): _fold(plain[second], 2**first) * np.float32(4**first / 4 ** (second - first))
            for first in range(scales)
            for second in range(first + 1, scales)
        }

    @property
    def channels(self) -> int:
        """Averages per cell of the grid."""
        return 1 + self.angles * self.scales + self.angles**2 * self.scales * (self.scales - 1) // 2

    def mirror(self) -> Array:
        """Positions p with features(mirrored image) = features(image)[p]: angles reflect and columns turn round."""
        flipped = (-np.arange(self.angles)) % self.angles
        blocks, start = [np.zeros(1, dtype=np.intp)], 1
        for scale in range(self.scales):
            blocks.append(start + flipped)
            start += self.angles
            for _ in range(scale + 1, self.scales):
                blocks.append((start + flipped[:, None] * self.angles + flipped[None, :]).ravel())
                start += self.angles**2
        channels = np.concatenate(blocks)
        cells = np.arange(self.grid**2).reshape(self.grid, self.grid)[:, ::-1].ravel()
        return (channels[:, None] * self.grid**2 + cells[None, :]).ravel()

    def __call__(self, canvases: Array) -> Array:
        """Features (images, channels * grid * grid) of float32 canvases (images, canvas, canvas)."""
        count, pad = len(canvases), self.pad
        padded = np.pad(canvases, ((0, 0), (pad, pad), (pad, pad)), "reflect")
        features = [(padded.reshape(count, -1) @ self._windows[0])[:, None]]
        spectrum = scipy.fft.fft2(padded)[:, None]
        for first in range(self.scales):
            modulus = np.abs(scipy.fft.ifft2(_filtered(spectrum, self._filters[first], 2**first), overwrite_x=True))
            features.append(modulus.reshape(count, self.angles, -1) @ self._windows[first])
            inner = scipy.fft.fft2(modulus)[:, :, None] if first + 1 < self.scales else modulus
            for second in range(first + 1, self.scales):
                folded = _filtered(inner, self._inner[first, second], 2 ** (second - first))
                deeper = np.abs(scipy.fft.ifft2(folded, overwrite_x=True))
                features.append(deeper.reshape(count, self.angles**2, -1) @ self._windows[second])
        return np.concatenate(features, axis=1).reshape(count, -1)
