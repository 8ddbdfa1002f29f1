"""A decoded scan: one plane of gray values, 8 or 16 bit, and all that is known about the file."""

import hashlib
from dataclasses import dataclass, replace
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from diffcolor.luminance import luma
from diffcolor.upsample import release_pages
from pipelines.images import scratch
from pipelines.images.deadline import within_deadline
from pipelines.images.errors import InputImageError
from pipelines.images.formats.codecs import open_raster
from pipelines.images.icc import BadProfileError, Profile, gamma_profile, read_profile
from pipelines.images.metadata import Metadata
from pipelines.images.raster import Raster
from pipelines.images.rules import MIN_SIDE, Rules, Toned
from pipelines.images.xmp import BadXmpError, parsed

# How far a JPEG encoder's chroma rounding moves equal channels apart, in 8-bit codes.
_GRAY_TOLERANCE = 2
# A toned picture's colour follows from its luminance; a larger residual is real colour (root mean square, 8-bit codes).
_TONE_RESIDUAL = 6.0
_NOISE = 1.0  # root mean square of the cells' offsets, up to which channels are equal but for noise
_PEAK = 12.0  # codes by which no cell's channels may differ then: a stamp or a seal is no noise
_TONE_BINS, _CELL = 64, 8
_USUAL_GAMMA = 1 / 2.2  # of PNG's gAMA: sRGB's curve is meant
_NEAR = 2  # 8-bit codes from black or white


@dataclass(frozen=True, kw_only=True)
class Source:
    """Facts about the scan's file; the columns of `source` in the results.

    Attributes:
        extreme: share of pixels that are black or white and can hold no colour.
        negative: whether the picture is the scan's inverse: its values subtracted from the largest of their depth.
    """

    format: str
    bytes: int
    page: int | None
    pages: int
    depth: int
    photometric: str
    compression: str
    decoder: str
    conversion: str
    dpi_x: float | None
    dpi_y: float | None
    orientation: int
    profile: str
    profile_sha256: str | None
    profile_assumed: bool
    software: str | None
    not_carried: tuple[str, ...]
    extreme: float
    negative: bool = False


@dataclass(frozen=True, kw_only=True)
class GrayImage:
    """A decoded scan.

    Attributes:
        gray: (H, W), uint8 or uint16, pixels as stored (an orientation tag turns the view only).
    """

    gray: NDArray[np.unsignedinteger]
    source: Source
    metadata: Metadata
    profile: Profile
    warnings: tuple[str, ...] = ()


@within_deadline
def decode_gray(file: BinaryIO, rules: Rules | None = None, page: int | None = None) -> GrayImage:
    """Decodes a scan: gray of 8 to 16 bit, or RGB whose channels are equal (or, by the rules, anything).

    Raises:
        InputImageError: with the kinds of docs/errors.md.
    """
    rules = rules or Rules()
    raster = open_raster(file, rules.max_pixels, page, MIN_SIDE)
    profile, warnings = _profile(raster, rules)
    gray, conversion = read_gray(raster, rules.toned)
    if conversion == "near_gray":
        warnings.append("near_gray: the channels differ by a code or two, or by noise; their luminance was used")
    if conversion == "desaturated":
        warnings.append("toned: tone or colour was removed; the luminance that is kept is that of the scan as it is")
    if raster.bits:
        warnings.append(f"scaled: {raster.bits} bits are kept as 16, value * 65535 / {(1 << raster.bits) - 1}, rounded")
    elif highest := _fewer_bits(gray):
        warnings.append(f"dark: the highest of its 16-bit values is {highest}: 12 bits or fewer, not scaled to 16?")
    if rules.negative:
        invert(gray)
    extreme = _refuse_colorless(gray)
    metadata, dropped = raster.metadata, list(raster.metadata.dropped)
    if metadata.xmp:
        try:
            parsed(metadata.xmp)
        except BadXmpError as error:
            warnings.append(f"xmp_dropped: {error}")
            dropped.append("XMP")
            metadata = replace(metadata, xmp=None)
    if damaged := [name for name in dropped if "damaged" in name]:
        warnings.append(f"metadata_damaged: {'; '.join(damaged)[:300]}")
    file.seek(0, 2)
    source = Source(
        format=raster.kind,
        bytes=file.tell(),
        page=page,
        pages=raster.pages,
        depth=raster.bits or 8 * raster.dtype.itemsize,
        photometric=raster.photometric,
        compression=raster.compression,
        decoder=raster.decoder,
        conversion=conversion,
        dpi_x=metadata.dpi[0] if metadata.dpi else None,
        dpi_y=metadata.dpi[1] if metadata.dpi else None,
        orientation=metadata.orientation,
        profile=profile.name,
        profile_sha256=hashlib.sha256(metadata.icc).hexdigest() if metadata.icc else None,
        profile_assumed=profile.assumed,
        software=metadata.software,
        not_carried=tuple(dropped),
        extreme=extreme,
        negative=rules.negative,
    )
    return GrayImage(gray=gray, source=source, metadata=metadata, profile=profile, warnings=tuple(warnings))


def invert(gray: NDArray[np.unsignedinteger]) -> None:
    """Makes a picture of a negative, or the reverse, in place."""
    for first, last in scratch.strips(*gray.shape):
        np.subtract(np.iinfo(gray.dtype).max, gray[first:last], out=gray[first:last])


def _profile(raster: Raster, rules: Rules) -> tuple[Profile, list[str]]:
    if raster.metadata.gamma and 0.2 <= raster.metadata.gamma <= 2 and abs(raster.metadata.gamma - _USUAL_GAMMA) > 0.02:
        return gamma_profile(raster.metadata.gamma), []
    try:
        profile = read_profile(raster.metadata.icc, raster.channels)
        foreign = f"profile_rgb: {profile.name!r} is not a gray profile; its tone curve was used"
        return profile, [foreign] if profile.foreign else []
    except BadProfileError as error:
        if not rules.assume_srgb:
            message = f"{error}; embed the right one, or accept sRGB's tone curve: --assume-srgb"
            raise InputImageError("profile_bad", message) from error
        return read_profile(None, raster.channels), [f"profile_bad: {error}; sRGB's tone curve was assumed"]


def read_gray(raster: Raster, toned: Toned = Toned.reject) -> tuple[NDArray[np.unsignedinteger], str]:
    """All pixels as one gray plane, and how they became one: "none", "inverted", "scaled", "equal_channels",
    "near_gray" or "desaturated".

    Raises:
        InputImageError: `toned` if toned scans are rejected, `is_colour`, or undecodable.
    """
    gray = scratch.empty((raster.height, raster.width), raster.dtype)
    if raster.channels == 1:
        for y, x, block in raster.blocks():
            gray[y : y + block.shape[0], x : x + block.shape[1]] = block
            release_pages(gray)
        return gray, "inverted" if raster.photometric == "MinIsWhite" else "scaled" if raster.bits else "none"
    tone = _Tone(np.iinfo(raster.dtype).max)
    for y, x, block in raster.blocks():
        for first, last in scratch.strips(*block.shape[:2]):
            part = block[first:last]
            values = luma(part)
            gray[y + first : y + last, x : x + block.shape[1]] = values
            tone.add(part, values)
        release_pages(gray)
    return gray, tone.conversion(toned)


class _Tone:
    """Whether channels are equal, differ by noise, by a tone (a function of the luminance), or hold colour.

    Colour is looked for in means of small cells, in which noise evens out.
    """

    def __init__(self, full: int) -> None:
        self.full, self.scale = full, 255 / full
        self.largest, self.count, self.absolute, self.peak = 0, 0, 0.0, 0.0
        self.bins = np.zeros((5, _TONE_BINS))  # cells; sums of R - Y and B - Y; sums of their squares

    def add(self, rgb: NDArray, values: NDArray) -> None:
        difference = rgb.astype(np.int32)[..., [0, 2]] - rgb[..., 1:2].astype(np.int32)
        largest = int(np.abs(difference).max())
        self.largest, self.count = max(self.largest, largest), self.count + values.size
        offsets = (rgb[..., [0, 2]].astype(np.float64) - values[..., None]) * self.scale
        self.absolute += float(np.abs(offsets).mean(-1).sum())
        cells, sizes = _cells(np.concatenate([values[..., None], offsets], -1))
        self.peak = max(self.peak, float(np.abs(cells[sizes > _CELL**2 // 2, 1:]).max(initial=0)))
        index = (cells[:, 0] * _TONE_BINS / (self.full + 1)).astype(np.int64)
        red, blue = cells[:, 1], cells[:, 2]
        for row, weights in enumerate((None, red, blue, red * red, blue * blue)):
            self.bins[row] += np.bincount(index, weights, _TONE_BINS)

    def conversion(self, toned: Toned) -> str:
        """What a gray plane is made by: see `read_gray`.

        Raises:
            InputImageError: `toned`, `is_colour`, unless anything is to be desaturated.
        """
        if not self.largest:
            return "equal_channels"
        if self.largest * self.scale <= _GRAY_TOLERANCE + 1e-9:
            return "near_gray"
        cells, total = np.maximum(self.bins[0], 1), 2 * self.bins[0].sum()
        spread = ((self.bins[3:] - self.bins[1:3] ** 2 / cells).clip(min=0).sum() / total) ** 0.5
        tone = ((self.bins[1:3] ** 2 / cells).sum() / total) ** 0.5
        if spread <= _NOISE and tone <= _NOISE and self.peak <= _PEAK:
            return "near_gray"
        if toned == Toned.desaturate:
            return "desaturated"
        mean = self.absolute / self.count
        remedy = "; to take the luminance of anything: --toned desaturate, or the row's toned"
        if spread > _TONE_RESIDUAL:
            message = f"channels differ by {mean:.1f} codes on average; it has colour already"
            raise InputImageError("is_colour", message + remedy, skipped=True)
        what = "a toned picture (sepia or the like)" if tone > spread else "pale colours, or channels out of register"
        raise InputImageError("toned", f"{what}: channels differ by {mean:.1f} codes on average{remedy}")


def _cells(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Means (n, C) of the cells of (H, W, C), and their pixels; those at the right and the bottom may be smaller."""
    starts = [np.arange(0, length, _CELL) for length in values.shape[:2]]
    down, across = (np.diff([*begins, length]) for begins, length in zip(starts, values.shape[:2], strict=True))
    sizes = down[:, None] * across[None]
    sums = np.add.reduceat(np.add.reduceat(values, starts[0], 0), starts[1], 1)
    return (sums / sizes[..., None]).reshape(-1, values.shape[-1]), sizes.ravel()


def _fewer_bits(gray: NDArray[np.unsignedinteger]) -> int:
    """The highest value of a 16-bit plane that uses 12 bits or fewer; else 0."""
    if gray.dtype != np.uint16:
        return 0
    highest = 0
    for first, last in scratch.strips(*gray.shape):
        highest = max(highest, int(gray[first:last].max()))
        release_pages(gray)
        if highest > 4095:
            return 0
    return highest


def _refuse_colorless(gray: NDArray[np.unsignedinteger]) -> float:
    """The share of pixels that are black or white.

    Raises:
        InputImageError: `blank` or `nearly_bitonal`.
    """
    full = int(np.iinfo(gray.dtype).max)
    near = _NEAR * full // 255
    low, high, extreme, walls = full, 0, 0, 0
    for first, last in scratch.strips(*gray.shape):
        part = gray[first:last]
        low, high = min(low, int(part.min())), max(high, int(part.max()))
        extreme += int(np.count_nonzero(part <= near) + np.count_nonzero(part >= full - near))
        walls += int(np.count_nonzero(part == 0) + np.count_nonzero(part == full))
        release_pages(gray)
    if low == high:
        raise InputImageError("blank", "every pixel is the same; there is nothing to colour", skipped=True)
    if extreme >= 0.98 * gray.size:
        message = "98 % of the pixels are black or white within 2 codes and cannot carry colour; scan in gray"
        raise InputImageError("nearly_bitonal", message, skipped=True)
    return walls / gray.size
