"""From decoded pixels to what an encoder sees: the one preprocessing of training and inference."""

from __future__ import annotations

import torch
from torch.nn import functional

from surveyproc.cutouts import InputContract

D4_ORDER = 8


def scale(pixels: torch.Tensor) -> torch.Tensor:
    """Turn ``(N, H, W, C)`` pixels into ``(N, C, H, W)`` float32; uint8 becomes [0, 1], floats keep their scale."""
    images = pixels.permute(0, 3, 1, 2)
    return images.float().div_(255.0) if pixels.dtype == torch.uint8 else images.float()


def centre_crop(images: torch.Tensor, fraction: float) -> torch.Tensor:
    """Keep the central ``fraction`` of each side of ``(N, C, H, W)``, at least one pixel, as a view.

    The kept side has the parity of the input's side, so that the centre does not move by half a pixel.
    """
    height, width = images.shape[-2:]
    top, left = _margin(height, fraction), _margin(width, fraction)
    return images[..., top : height - top, left : width - left]


def resize(images: torch.Tensor, size: int) -> torch.Tensor:
    """Resize ``(N, C, H, W)`` to ``size`` by antialiased bilinear interpolation; the same size is left alone."""
    if images.shape[-2:] == (size, size):
        return images.contiguous()
    return functional.interpolate(
        images, size=(size, size), mode="bilinear", align_corners=False, antialias=True
    )


def crop_pixels(pixels: torch.Tensor, fraction: float) -> torch.Tensor:
    """`centre_crop` of ``(N, H, W, C)``, as a view."""
    return centre_crop(pixels.permute(0, 3, 1, 2), fraction).permute(0, 2, 3, 1)


def select_bands(pixels: torch.Tensor, positions: list[int]) -> torch.Tensor:
    """Take channels of ``(N, H, W, C)`` by position; the pixels themselves when those are all, in order."""
    return pixels if positions == list(range(pixels.shape[-1])) else pixels[..., positions]


def normalise(images: torch.Tensor, contract: InputContract) -> torch.Tensor:
    """Bring ``(N, C, H, W)`` scaled pixels to what the encoder sees.

    In this order: ``asinh(x / softening)`` for flux, the mean over the bands for a greyscale encoder, and
    ``(x - mean) / std``.

    Returns
    -------
    torch.Tensor
        ``(N, contract.channels, H, W)``.
    """
    if contract.softening is not None:
        images = torch.asinh(images / _along_channels(contract.softening, images))
    if contract.greyscale:
        images = images.mean(1, keepdim=True)
    return (images - _along_channels(contract.mean, images)) / _along_channels(contract.std, images)


def prepare(pixels: torch.Tensor, contract: InputContract) -> torch.Tensor:
    """Crop, resize and normalise decoded cutouts for a bundle.

    Parameters
    ----------
    pixels : torch.Tensor
        ``(N, H, W, C)`` uint8 (0-255), float16 or float32 (already on the bundle's scale), in the bundle's bands.
    contract : InputContract
        The bundle's input: ``crop``, ``size``, and what `normalise` takes.

    Returns
    -------
    torch.Tensor
        ``(N, contract.channels, size, size)`` float32.
    """
    return finish(crop_pixels(pixels, contract.crop), contract)


def finish(cropped: torch.Tensor, contract: InputContract) -> torch.Tensor:
    """What `prepare` does after the crop."""
    return normalise(resize(scale(cropped), contract.size), contract)


def d4(images: torch.Tensor, k: int) -> torch.Tensor:
    """Apply symmetry ``k`` of the square to ``(N, C, S, S)``: ``k % 4`` quarter turns, mirrored first from 4 on.

    Raises
    ------
    ValueError
        When ``k`` is not in 0..7.
    """
    if not 0 <= k < D4_ORDER:
        raise ValueError(f"the square has 8 symmetries, numbered 0 to 7; got {k}")
    mirrored = images.flip(-1) if k >= 4 else images
    return torch.rot90(mirrored, k % 4, dims=(-2, -1))


def _margin(side: int, fraction: float) -> int:
    return min(round(side * (1.0 - fraction) / 2.0), (side - 1) // 2)


def _along_channels(value: float | tuple[float, ...], images: torch.Tensor) -> float | torch.Tensor:
    return images.new_tensor(value).view(-1, 1, 1) if isinstance(value, tuple) else value
