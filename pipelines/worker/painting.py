"""From colours at working size to stored pictures at the scan's own size, their luminance checked in the file."""

import io
import json
import tempfile
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, BinaryIO, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diffcolor.colorize import Colored
from diffcolor.errors import LumaMismatchError
from diffcolor.luminance import Reductions
from diffcolor.measures import colorfulness, lightness_shift
from diffcolor.models import Models
from pipelines.images import scratch
from pipelines.images.formats.codecs import format_for, losses, write
from pipelines.images.formats.pillow import fits_jpeg, jpeg
from pipelines.images.formats.table import FORMATS
from pipelines.images.metadata import Metadata
from pipelines.images.paint import check_luma, painted, upright_picture
from pipelines.images.picture_format import PictureFormat
from pipelines.images.view import View
from pipelines.images.xmp import Mark, marked
from pipelines.job import OutputOptions
from pipelines.ledger.identity import sha256
from pipelines.ledger.names import access_key, image_key, pixels_key, preview_key, report_link
from pipelines.ledger.results import Output
from pipelines.store.store import Store
from pipelines.version import SYSTEM, VERSION
from pipelines.worker.rows import Example

PREVIEW_SIDE, PIXELS_SIDE, CANDIDATE_SIDE = 960, 480, 384
FULL_GLOW = 15.0  # units of a*b* at which the picture of what is guessed is most vivid
_GLOW = np.array([0.4, -0.5], np.float32)  # R - luma and B - luma of an orange
_PREVIEW_QUALITY, _ACCESS_QUALITY = 85, 92


@dataclass(frozen=True, kw_only=True)
class Stored:
    """A stored picture whose luma was read back from its file and equals the scan's gray values.

    Attributes:
        note: why its format differs from the one asked for, and which metadata it cannot hold; None if neither.
    """

    key: str
    sha256: str
    bytes: int
    format: str
    reductions: Reductions
    note: str | None


@dataclass(frozen=True, kw_only=True)
class PictureWriter:
    """Makes and stores the pictures of one row.

    Attributes:
        models: named in the mark; the coarse colorizer says how sure it is.
        image: the scan's URI without secrets, None where its bytes were in the manifest.
        image_sha256: of the scan's file.
    """

    store: Store
    options: OutputOptions
    models: Models
    view: View
    row_id: str
    image: str | None
    image_sha256: str
    prompt_writer: str | None = None
    example: Example | None = None

    def _picture_format(self, prompt: str, format_: str, view: View, bare: bool = False) -> PictureFormat:
        """With `bare`, none of the scan's metadata except its profile."""
        models = self.models.identity
        mark = Mark(
            system=SYSTEM,
            version=f"{VERSION}, {models.base_model} {models.base_model_digest[:16]}",
            prompt=prompt,
            original=self.image or self.row_id,
            original_sha256=self.image_sha256,
            prompt_writer=self.prompt_writer,
        )
        image = view.image
        metadata = Metadata() if bare else image.metadata
        return PictureFormat(
            format=format_,
            height=image.gray.shape[0],
            width=image.gray.shape[1],
            dtype=image.gray.dtype,
            metadata=metadata,
            icc=image.profile.output,
            xmp=marked(metadata.xmp, mark if self.options.mark else None),
        )

    def store_picture(self, number: int, prompt: str, chroma: NDArray[np.float32]) -> Stored:
        """Composes a picture at native size and depth, checks it by reading it back, and stores it.

        Raises:
            LumaMismatchError: the file does not hold the scan's gray values; it is not stored.
        """
        image, reductions = self.view.image, Reductions()
        height, width = image.gray.shape
        format_, note = format_for(self.options.format, image.source.format, height, width, image.gray.dtype)
        form = self._picture_format(prompt, format_, self.view)
        note = "; ".join(filter(None, (note, losses(form)))) or None
        with tempfile.NamedTemporaryFile() as temporary:  # tifffile needs a name
            file = cast(BinaryIO, temporary)
            write(file, painted(self.view, chroma, reductions), form)
            if wrong := check_luma(file, image.gray).mismatches:
                raise LumaMismatchError(wrong)
            digest = scratch.sha256_of_file(file)
            key = image_key(self.row_id, number, prompt, digest, FORMATS[format_].suffixes[0].removeprefix("."))
            self.store.write_file(key, file)
            return Stored(key=key, sha256=digest, bytes=file.tell(), format=format_, reductions=reductions, note=note)

    def store_preview(self, name: str, chroma: NDArray[np.float32] | None, side: int = PREVIEW_SIDE) -> str:
        """Stores a JPEG of the upright view for the report; returns its key."""
        content = self._preview(name, chroma, side)
        key = preview_key(self.row_id, name, content)
        self.store.write(key, content)
        return key

    def _store_pixels(self, name: str, chroma: NDArray[np.float32]) -> str:
        """Stores the preview's pixels for the report's script; returns their key."""
        content = self._preview(name, chroma, PIXELS_SIDE)
        key = pixels_key(self.row_id, name, content)
        arguments = json.dumps([report_link(key), f"data:image/jpeg;base64,{b64encode(content).decode()}"])
        self.store.write(key, f"report.preview(...{arguments});\n".encode())
        return key

    def _preview(self, name: str, chroma: NDArray[np.float32] | None, side: int) -> bytes:
        view = self.view.preview(side)
        form = self._picture_format(name, "jpeg", view, bare=True)
        if chroma is None:
            form = replace(form, xmp=None)
        return jpeg(upright_picture(view, chroma), form, _PREVIEW_QUALITY)

    def store_output(self, number: int, prompt: str, ladder: Sequence[Colored], source: str) -> Output:
        """Stores the best of one prompt's candidates (best first), and previews of all."""
        referred = [self._referred(candidate.rgb) for candidate in ladder]
        hinted = [self.view.hinted(rgb) for rgb, _ in referred]
        ladder = [replace(candidate, rgb=rgb) for candidate, (rgb, _) in zip(ladder, hinted, strict=True)]
        best = ladder[0]
        chroma = self.view.chroma(best.rgb)
        small = self.view.preview(PREVIEW_SIDE)
        shift = lightness_shift(np.concatenate(list(painted(small, chroma, Reductions()))), small.image.gray)
        stored = self.store_picture(number, prompt, chroma)
        spread = self._spread(best.rgb, prompt)
        access = self._store_access_copy(number, prompt, chroma) if self.options.access_copy else {}
        return Output(
            prompt=prompt,
            image=stored.key,
            sha256=stored.sha256,
            format=stored.format,
            bytes=stored.bytes,
            eta=best.eta,
            colorfulness=_colorfulness(best),
            clip_margin=best.clip_margin,
            stray_color=best.stray_color,
            chroma_reduced=stored.reductions.share,
            chroma_kept=stored.reductions.mean_kept,
            repaired=stored.reductions.repaired,
            lightness_mean=shift[0],
            lightness_max=shift[1],
            preview=self.store_preview(f"{number}-{prompt}", chroma),
            pixels=self._store_pixels(f"{number}-{prompt}", chroma),
            candidates=tuple(
                {
                    "eta": candidate.eta,
                    "clip_margin": candidate.clip_margin,
                    "stray_color": candidate.stray_color,
                    "colorfulness": _colorfulness(candidate),
                    "preview": self.store_preview(
                        f"{number}-eta-{candidate.eta:g}", self.view.chroma(candidate.rgb), CANDIDATE_SIDE
                    ),
                }
                for candidate in ladder
            ),
            source=source,
            color_spread=float(spread.mean()),
            spread_preview=self.store_preview(f"{number}-guessed", _warm(self.view.as_stored(spread)), CANDIDATE_SIDE),
            hints=tuple(str(place) for place in self.view.places),
            hints_kept=hinted[0][1],
            reference=self.example.name if self.example else None,
            reference_sha256=self.example.sha256 if self.example else None,
            reference_likeness=referred[0][1],
            note=stored.note,
            **access,
        )

    def _spread(self, rgb: Tensor, prompt: str) -> NDArray[np.float32]:
        """How unsure the coarse colorizer is at each place of a working picture, (h, w), upright, in units of a*b*."""
        gray = torch.from_numpy(self.view.gray(rgb.shape[-2], rgb.shape[-1]))[None, None].to(self.models.device)
        return self.models.coarse.spread(gray, [prompt])[0, 0].cpu().numpy()

    def _referred(self, rgb: Tensor) -> tuple[Tensor, float | None]:
        """A working picture (3, h, w) with the example's colours, and how alike the example is."""
        if self.example is None:
            return rgb, None
        picture = np.ascontiguousarray(rgb.float().permute(1, 2, 0).cpu().numpy())
        gray = self.view.gray(picture.shape[0], picture.shape[1])
        painted, likeness = self.example.reference(gray, picture)
        return torch.from_numpy(painted).permute(2, 0, 1), likeness

    def _store_access_copy(self, number: int, prompt: str, chroma: NDArray[np.float32]) -> dict[str, Any]:
        """An 8-bit JPEG, composed on the downscaled gray values: a master's colours are never rounded or resized."""
        small = self.view.shrunk(self.options.access_size)
        pixels = np.concatenate(list(painted(small, chroma, Reductions())))
        form = self._picture_format(prompt, "jpeg", small)
        if not fits_jpeg(form):  # its segments hold at most 64 KB
            form = self._picture_format(prompt, "jpeg", small, bare=True)
        content = jpeg(pixels, form, _ACCESS_QUALITY)
        check = check_luma(io.BytesIO(content), small.image.gray)
        key = access_key(self.row_id, number, prompt, sha256(content))
        self.store.write(key, content)
        return {
            "access": key,
            "access_sha256": sha256(content),
            "access_luma_mean": check.mean,
            "access_luma_max": check.largest,
        }


def _warm(spread: NDArray[np.float32]) -> NDArray[np.float32]:
    """Chroma, as `View.chroma` gives it, of a scan that glows where colours are guessed."""
    return np.minimum(spread[..., None] / FULL_GLOW, 1) * _GLOW


def unlike(outputs: Sequence[Output]) -> list[str]:
    """A warning where nothing of a reference was alike."""
    names = dict.fromkeys(output.reference for output in outputs if output.reference_likeness == 0)
    return [f"reference_unlike: nothing in the picture is like {name}; it changed nothing" for name in names]


def _colorfulness(colored: Colored) -> float:
    pixels = (colored.rgb.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()
    return colorfulness(pixels)
