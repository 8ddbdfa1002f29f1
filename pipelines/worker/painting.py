"""From colours at working size to stored pictures at the scan's own size, their luminance checked in the file."""

import io
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from diffcolor.colorize import Colored
from diffcolor.errors import LumaMismatchError
from diffcolor.luminance import Reductions
from diffcolor.measures import colorfulness, lightness_shift
from pipelines.images import scratch
from pipelines.images.formats.write import SUFFIXES, Form, fits_jpeg, format_for, jpeg, losses, write
from pipelines.images.metadata import Metadata
from pipelines.images.paint import check_luma, painted, upright_picture
from pipelines.images.view import View
from pipelines.images.xmp import Mark, marked
from pipelines.job import OutputOptions
from pipelines.ledger.identity import sha256
from pipelines.ledger.names import access_key, image_key, preview_key
from pipelines.ledger.results import Output
from pipelines.store.store import Store
from pipelines.version import SYSTEM, VERSION

PREVIEW_SIDE, CANDIDATE_SIDE = 960, 384
_PREVIEW_QUALITY, _ACCESS_QUALITY = 85, 92


@dataclass(frozen=True, kw_only=True)
class Stored:
    """A picture that is in the store, its luma read back from the file and equal to the scan's gray values.

    Attributes:
        note: why its format is not the one that was asked for, and what of the metadata it cannot hold, if so.
    """

    key: str
    sha256: str
    bytes: int
    format: str
    reductions: Reductions
    note: str | None


@dataclass(frozen=True, kw_only=True)
class Studio:
    """Makes and stores the pictures of one row.

    Attributes:
        model: name and digest of the base model, for the mark.
        original, original_sha256: the scan's URI and the hash of its file.
    """

    store: Store
    options: OutputOptions
    row_id: str
    view: View
    model: str
    original: str
    original_sha256: str
    prompt_writer: str | None = None

    def _form(self, prompt: str, format_: str, view: View, bare: bool = False) -> Form:
        """A `bare` one has nothing of the scan's own but its profile."""
        mark = Mark(
            system=SYSTEM,
            version=f"{VERSION}, {self.model}",
            prompt=prompt,
            original=self.original,
            original_sha256=self.original_sha256,
            prompt_writer=self.prompt_writer,
        )
        image = view.image
        metadata = Metadata() if bare else image.metadata
        return Form(
            format=format_,
            height=image.gray.shape[0],
            width=image.gray.shape[1],
            dtype=image.gray.dtype,
            metadata=metadata,
            icc=image.profile.output,
            xmp=marked(metadata.xmp, mark if self.options.mark else None),
        )

    def store_picture(self, number: int, prompt: str, chroma: NDArray[np.float32]) -> Stored:
        """Composes a picture at native size and depth, reads it back, and stores it.

        Raises:
            LumaMismatchError: the file does not hold the scan's gray values; it is not stored.
        """
        image, reductions = self.view.image, Reductions()
        format_, note = format_for(self.options.format, image.source.format, *image.gray.shape, image.gray.dtype)
        form = self._form(prompt, format_, self.view)
        note = "; ".join(filter(None, (note, losses(form)))) or None
        with tempfile.NamedTemporaryFile() as file:  # tifffile wants a name
            write(file, painted(self.view, chroma, reductions), form)
            if wrong := check_luma(file, image.gray).mismatches:
                raise LumaMismatchError(wrong)
            digest = scratch.sha256_of_file(file)
            key = image_key(self.row_id, number, prompt, digest, SUFFIXES[format_])
            self.store.write_file(key, file)
            return Stored(key=key, sha256=digest, bytes=file.tell(), format=format_, reductions=reductions, note=note)

    @cached_property
    def _seen(self) -> dict[int, View]:
        """The view, small, by its longest side."""
        cropped = self.view.cropped()
        return {side: cropped.shrunk(side) for side in (PREVIEW_SIDE, CANDIDATE_SIDE)}

    def store_preview(self, name: str, chroma: NDArray[np.float32] | None, side: int = PREVIEW_SIDE) -> str:
        """Stores a JPEG for the report to show: the view, upright. Returns its key."""
        view = self._seen[side]
        form = self._form(name, "jpeg", view, bare=True)
        if chroma is None:
            form = replace(form, xmp=None)
        content = jpeg(upright_picture(view, chroma), form, _PREVIEW_QUALITY)
        key = preview_key(self.row_id, name, content)
        self.store.write(key, content)
        return key

    def store_output(self, number: int, prompt: str, ladder: Sequence[Colored], source: str) -> Output:
        """Stores the favourite of one prompt's candidates (best first), and previews of all."""
        best = ladder[0]
        chroma = self.view.chroma(best.rgb)
        small = self._seen[PREVIEW_SIDE]
        shift = lightness_shift(np.concatenate(list(painted(small, chroma, Reductions()))), small.image.gray)
        stored = self.store_picture(number, prompt, chroma)
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
            candidates=tuple(
                {
                    "eta": one.eta,
                    "clip_margin": one.clip_margin,
                    "stray_color": one.stray_color,
                    "colorfulness": _colorfulness(one),
                    "preview": self.store_preview(
                        f"{number}-eta-{one.eta:g}", self.view.chroma(one.rgb), CANDIDATE_SIDE
                    ),
                }
                for one in ladder
            ),
            source=source,
            note=stored.note,
            **access,
        )

    def _store_access_copy(self, number: int, prompt: str, chroma: NDArray[np.float32]) -> dict:
        """An 8-bit JPEG, composed anew against the shrunken gray: colours of a master are never rounded or resized."""
        small = self.view.shrunk(self.options.access_size)
        pixels = np.concatenate(list(painted(small, chroma, Reductions())))
        form = self._form(prompt, "jpeg", small)
        if not fits_jpeg(form):  # whose segments end at 64 KB
            form = self._form(prompt, "jpeg", small, bare=True)
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


def _colorfulness(colored: Colored) -> float:
    pixels = (colored.rgb.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()
    return colorfulness(pixels)
