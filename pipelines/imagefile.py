"""Image files to gray arrays and back. What a file is, is decided by its content, never by its name."""

import io
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin, UnidentifiedImageError

from diffcolor.luminance import luma
from pipelines.jobspec import MAX_PIXELS

MIN_SIDE = 64
# What a JPEG encoder's chroma rounding makes of equal channels.
_GRAY_TOLERANCE = 2
_MARK = "Colours are machine-made (diffcolor-batch); luminance is the scan's own."
# ImageDescription, Make, Model, Orientation, DateTime, Artist, Copyright
_DESCRIPTIVE_TAGS = frozenset({0x010E, 0x010F, 0x0110, 0x0112, 0x0132, 0x013B, 0x8298})
_SIGNATURES = {
    b"%PDF": "a PDF (export its pages first)",
    b"PK\x03\x04": "a ZIP archive",
    b"<!DO": "an HTML page",
    b"<htm": "an HTML page",
    b"<?xm": "an XML file",
    b"{": "JSON text",
}


class InputImageError(Exception):
    """An image that cannot be colorized. `kind` is stable, the message names the remedy."""

    def __init__(self, kind: str, message: str, skipped: bool = False) -> None:
        super().__init__(kind, message, skipped)
        self.kind, self.message, self.skipped = kind, message, skipped

    def __str__(self) -> str:
        return self.message


@dataclass(frozen=True)
class GrayImage:
    """A decoded scan: `gray` is (H, W) uint8; `dpi` and `exif` are carried over to the outputs."""

    gray: NDArray[np.uint8]
    dpi: tuple[float, float] | None = None
    exif: bytes = b""
    warnings: tuple[str, ...] = field(default=())


def decode_gray(content: bytes, max_pixels: int = MAX_PIXELS) -> GrayImage:
    """Decodes an 8-bit gray image (PNG, JPEG, TIFF, WebP, BMP; gray, or colour files whose channels are equal).

    Raises:
        InputImageError: with the kinds of docs/errors.md.
    """
    if not content:
        raise InputImageError("empty", "the file has 0 bytes; copy it again from its source")
    Image.MAX_IMAGE_PIXELS = None  # our own limit below counts, by the header, before any pixel is decoded
    try:
        image = Image.open(io.BytesIO(content), formats=("PNG", "JPEG", "TIFF", "WEBP", "BMP"))
    except UnidentifiedImageError as error:
        kind = next((name for magic, name in _SIGNATURES.items() if content.startswith(magic)), None)
        looks = kind or ("text" if _is_text(content[:512]) else "of no image type that is read")
        raise InputImageError(
            "not_image", f"the content is {looks}; accepted are PNG, JPEG, TIFF, WebP and BMP"
        ) from error
    except (OSError, ValueError, SyntaxError) as error:
        raise InputImageError("undecodable", f"the header is damaged ({error}); copy the file again") from error
    width, height = image.size
    if width * height > max_pixels:
        raise InputImageError(
            "too_large",
            f"{width} x {height} = {width * height / 1e6:.0f} MP, limit {max_pixels / 1e6:.0f} MP (--max-pixels)",
        )
    if min(width, height) < MIN_SIDE:
        raise InputImageError("too_small", f"{width} x {height} pixels; both sides need at least {MIN_SIDE}")
    if getattr(image, "n_frames", 1) > 1:
        raise InputImageError(
            "page_required", f"the file has {image.n_frames} pages; give each page as a file of its own"
        )
    try:
        image.load()
    except (OSError, ValueError, SyntaxError) as error:
        raise InputImageError(
            "truncated", f"the pixels cannot be decoded to the end ({error}); copy it again"
        ) from error
    gray, warnings = _gray_channel(image)
    _refuse_colorless(gray)
    return GrayImage(gray, _dpi(image), _exif(image), warnings)


def _dpi(image: Image.Image) -> tuple[float, float] | None:
    """Pixels per inch, None if there is none or it is nonsense (0/0 is a common one)."""
    dpi = tuple(float(value) for value in image.info.get("dpi", ()))
    return dpi if len(dpi) == 2 and all(0 < value < 1e6 for value in dpi) else None


def _exif(image: Image.Image) -> bytes:
    """The EXIF block to carry: as it is, or of a TIFF's tags those that describe (its others are the file's layout)."""
    if image.format != "TIFF":
        return image.info.get("exif", b"")
    carried = Image.Exif()
    carried.update({tag: value for tag, value in image.getexif().items() if tag in _DESCRIPTIVE_TAGS})
    return carried.tobytes() if len(carried) else b""


def _is_text(head: bytes) -> bool:
    return all(byte >= 32 or byte in b"\r\n\t" for byte in head)


def _gray_channel(image: Image.Image) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
    match image.mode:
        case "L":
            return np.asarray(image), ()
        case "1":
            raise InputImageError("bitonal", "pure black and white cannot carry colour; scan in gray", skipped=True)
        case "RGB":
            return _equal_channels(np.asarray(image))
        case "I;16" | "I;16B" | "I;16L" | "I" | "F":
            raise InputImageError("depth", f"pixel type {image.mode} is not 8 bit per channel; convert to 8-bit gray")
        case "LA" | "RGBA" | "La" | "RGBa" | "PA":
            raise InputImageError("alpha", "the image has transparency; flatten it to gray")
        case mode:
            raise InputImageError("color_model", f"colour model {mode}; convert to 8-bit gray or RGB")


def _equal_channels(rgb: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
    difference = int(np.abs(rgb.astype(np.int16) - rgb[..., 1:2]).max())
    if difference > _GRAY_TOLERANCE:
        mean = float(np.abs(rgb.astype(np.float32) - rgb[..., 1:2]).mean())
        raise InputImageError(
            "is_colour",
            f"channels differ by {mean:.1f} codes on average; it has colour already (or a tone: desaturate it)",
            skipped=True,
        )
    if difference:
        return np.ascontiguousarray(rgb[..., 1]), (
            f"near_gray: channels differ by up to {difference}; green was taken",
        )
    return np.ascontiguousarray(rgb[..., 1]), ()


def _refuse_colorless(gray: NDArray[np.uint8]) -> None:
    counts = np.bincount(gray.ravel(), minlength=256)
    if np.count_nonzero(counts) == 1:
        raise InputImageError("blank", "every pixel is the same; there is nothing to colour", skipped=True)
    if counts[:3].sum() + counts[253:].sum() >= 0.98 * gray.size:
        message = "98 % of the pixels are black or white within 2 codes and cannot carry colour; scan in gray"
        raise InputImageError("nearly_bitonal", message, skipped=True)


def encode_png(rgb: NDArray[np.uint8], like: GrayImage, prompt: str) -> bytes:
    """A lossless PNG of (H, W, 3) with the scan's resolution and EXIF, marked as machine-coloured."""
    text = PngImagePlugin.PngInfo()
    text.add_text("Software", "diffcolor-batch")
    text.add_text("Comment", _MARK)
    text.add_itxt("Prompt", prompt)
    options = {"dpi": like.dpi} if like.dpi else {}
    if like.exif:
        options["exif"] = like.exif
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, "PNG", pnginfo=text, **options)
    return buffer.getvalue()


def decode_output(content: bytes) -> tuple[NDArray[np.uint8], GrayImage]:
    """One of our own outputs: its pixels (H, W, 3) uint8, and the scan that it holds.

    Raises:
        InputImageError: it cannot be read.
    """
    Image.MAX_IMAGE_PIXELS = None
    try:
        image = Image.open(io.BytesIO(content), formats=("PNG",))
        image.load()
    except (OSError, ValueError, SyntaxError) as error:
        raise InputImageError("unreadable", f"not a readable PNG ({error})") from error
    if image.mode != "RGB":
        raise InputImageError("unreadable", f"mode {image.mode}, expected RGB")
    pixels = np.asarray(image)
    return pixels, GrayImage(luma(pixels), _dpi(image), _exif(image))
