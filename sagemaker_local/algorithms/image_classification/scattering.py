"""Wavelet scattering on a small canvas: averages of wavelet moduli, stable under small shifts and deformations.

First order: |x * psi_(scale, angle)|, second order: ||x * psi_1| * psi_2| for coarser psi_2, each averaged by Gaussian
windows on a grid. Filters are Morlet wavelets applied by FFT; after a filter of scale j the signal is kept on every
2^j-th pixel alone. Source: Bruna and Mallat, "Invariant Scattering Convolution Networks", 2013.
"""

import threading
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


def _blocks(spectrum: Array, factor: int) -> Array:
    """The aliases of a spectrum once only every `factor`-th pixel is kept, side by side.

    (..., side, side) complex or real to (..., factor^2, numbers) float32, complex numbers as their two parts.
    """
    *lead, side, _ = spectrum.shape
    small, parts = side // factor, spectrum.view(np.float32).size // spectrum.size
    cut = spectrum.view(np.float32).reshape(*lead, factor, small, factor, small * parts)
    return cut.swapaxes(-3, -2).reshape(*lead, factor**2, small * small * parts)


def windows(size: int, grid: int, step: int, pad: float, canvas: int) -> Array:
    """Averaging weights (size * size, grid * grid): Gaussians centred on a grid over the unpadded canvas."""
    centres = pad + (np.arange(grid) + 0.5) * canvas / grid - 0.5
    width = canvas / grid / 2
    weights = np.exp(-((np.arange(size)[None, :] * step - centres[:, None]) ** 2) / (2 * width**2))
    weights /= weights.sum(axis=1, keepdims=True)
    return np.einsum("ay,bx->yxab", weights, weights).reshape(size * size, grid * grid).astype(np.float32)


class Scattering:
    """Scattering features of one-channel canvases.

    All that ends at one scale, of first and of second order, goes through one inverse transform: few calls, and
    arrays that stay in the processor's cache.

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
        # Dropping pixels averages the aliases of a spectrum: the filters carry the 1 / factor^2 of that. Each number
        # twice: for the real and the imaginary part of the spectrum.
        self._filters = [
            np.repeat(_blocks(filters / np.float32(4**scale), 2**scale), 2, axis=-1)
            for scale, filters in enumerate(plain)
        ]
        self._windows = [windows(side >> scale, grid, 2**scale, pad, canvas) for scale in range(scales)]
        # A filter on the signal kept on every 2^j-th pixel: its own spectrum, folded (aliases are below 1e-3).
        self._inner = {
            (first, second): np.repeat(
                _blocks(
                    _fold(plain[second], 2**first) * np.float32(4**first / 4 ** (second - first)),
                    2 ** (second - first),
                ),
                2,
                axis=-1,
            )
            for first in range(scales)
            for second in range(first + 1, scales)
        }
        edge = np.pad(np.arange(canvas), pad, "reflect")
        self._padded = (edge[:, None] * canvas + edge[None, :]).ravel()
        self._space = threading.local()

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
            for _ in range(scale):
                blocks.append((start + flipped[:, None] * self.angles + flipped[None, :]).ravel())
                start += self.angles**2
        channels = np.concatenate(blocks)
        cells = np.arange(self.grid**2).reshape(self.grid, self.grid)[:, ::-1].ravel()
        return (channels[:, None] * self.grid**2 + cells[None, :]).ravel()

    def _buffers(self, count: int) -> list[tuple[Array, Array]]:
        """Arrays to work in, kept by each thread: fresh ones of this size cost as much as the sums in them."""
        kept: dict[int, list[tuple[Array, Array]]] = self._space.__dict__.setdefault("kept", {})
        if count not in kept:
            side = self.canvas + 2 * self.pad
            shapes = [
                (count, self.angles + scale * self.angles**2, side >> scale, side >> scale)
                for scale in range(self.scales)
            ]
            kept.clear()
            kept[count] = [(np.empty(shape, np.complex64), np.empty(shape, np.float32)) for shape in shapes]
        return kept[count]

    def __call__(self, canvases: Array) -> Array:
        """Features (images, channels * grid * grid) of float32 canvases (images, canvas, canvas)."""
        count, angles = len(canvases), self.angles
        padded = canvases.reshape(count, -1).take(self._padded, axis=1)
        result = np.empty((count, self.channels, self.grid**2), dtype=np.float32)
        result[:, 0] = padded @ self._windows[0]
        side = self.canvas + 2 * self.pad
        spectra = [scipy.fft.fft2(padded.reshape(count, 1, side, side))]  # of the image, then of each scale's moduli
        start = 1
        for scale, (waves, moduli) in enumerate(self._buffers(count)):
            numbers = waves.view(np.float32).reshape(count, waves.shape[1], -1)
            _filtered(spectra[0], self._filters[scale], 2**scale, numbers[:, :angles])
            for first in range(scale):
                part = numbers[:, angles + first * angles**2 :][:, : angles**2]
                _filtered(spectra[first + 1], self._inner[first, scale], 2 ** (scale - first), part)
            np.abs(scipy.fft.ifft2(waves, overwrite_x=True), out=moduli)
            flat = moduli.reshape(count, waves.shape[1], -1)
            np.matmul(flat, self._windows[scale], out=result[:, start : start + waves.shape[1]])
            start += waves.shape[1]
            if scale + 1 < self.scales:
                spectra.append(scipy.fft.fft2(moduli[:, :angles]))
        return result.reshape(count, -1)


def _filtered(spectra: Array, filters: Array, factor: int, result: Array) -> None:
    """Sum over the aliases of spectrum * filter once only every `factor`-th pixel is kept.

    Args:
        spectra: complex64 (images, signals, side, side).
        filters: as `_blocks` cuts them, (angles, factor^2, numbers).
        result: float32 (images, signals * angles, numbers) to write to.
    """
    shape = (*spectra.shape[:2], len(filters), filters.shape[-1])
    np.einsum("isbn,abn->isan", _blocks(spectra, factor), filters, out=result.reshape(shape))
