"""What a whole newspaper page costs: time and memory of composing a 16-bit TIFF of so many megapixels.

    python benchmarks/page.py [MEGAPIXELS ...]

Five colours are known at points. Each size runs in a process of its own; memory is the process's largest resident set,
the interpreter and its libraries included. The time is also given in units of reading the scan and writing it again as
it is: the least any tool needs.
"""

import itertools
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import imagecodecs
import numpy as np
import tifffile


def make_page(path: Path, megapixels: float) -> None:
    """A page in Deflate strips, noise on a gradient, written without ever being whole in memory."""
    width = int((megapixels * 1e6 * 0.75) ** 0.5)
    height = int(width / 0.75)
    rng = np.random.default_rng(0)

    def strips():
        for first in range(0, height, 64):
            rows = min(64, height - first)
            light = np.linspace(8000, 56000, width) + 3000 * np.sin(np.arange(first, first + rows) / 200)[:, None]
            strip = (light + rng.normal(0, 300, (rows, width))).astype(np.uint16)
            yield imagecodecs.deflate_encode(strip.tobytes(), level=1, raw=False)

    tifffile.imwrite(
        path,
        strips(),
        shape=(height, width),
        dtype=np.uint16,
        photometric="minisblack",
        compression="adobe_deflate",
        rowsperstrip=64,
        metadata=None,
    )


def compose(path: Path) -> dict:
    """The page as a worker composes it, once decoded: written, read back, compared; and the least any tool needs."""
    import torch

    from diffcolor.luminance import Reductions
    from manifests.color_places import ColorPlace
    from pipelines.images.formats.codecs import write
    from pipelines.images.gray import decode_gray
    from pipelines.images.paint import check_luma, painted
    from pipelines.images.picture_format import PictureFormat
    from pipelines.images.view import View

    marks = {"libraries": time.monotonic()}
    base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    with open(path, "rb") as file:
        image = decode_gray(file)
    height, width = image.gray.shape
    at = np.random.default_rng(0).uniform(0, 1, (5, 2)) * (width, height)
    view = View(image, places=[ColorPlace(x=int(x), y=int(y), color="dark red") for x, y in at])
    marks["decode"] = time.monotonic()
    view.gray(512, 384)
    marks["view"] = time.monotonic()
    rgb, _ = view.hinted(torch.rand((3, 512, 384), generator=torch.Generator().manual_seed(0)))
    marks["hints"] = time.monotonic()
    chroma = view.chroma(rgb)
    form = PictureFormat(
        format="tiff",
        height=image.gray.shape[0],
        width=image.gray.shape[1],
        dtype=image.gray.dtype,
        metadata=image.metadata,
        icc=image.profile.output,
        xmp=None,
    )
    with tempfile.NamedTemporaryFile() as out:
        write(out, painted(view, chroma, Reductions()), form)
        marks["write"] = time.monotonic()
        check = check_luma(out, image.gray)
        marks["check"] = time.monotonic()
        size = out.seek(0, 2)
    with tempfile.NamedTemporaryFile() as out:
        write(out, (np.repeat(image.gray[y : y + 64, :, None], 3, -1) for y in range(0, image.gray.shape[0], 64)), form)
    marks["plain copy"] = time.monotonic()
    names = list(marks)
    seconds = {name: round(marks[name] - marks[before], 1) for before, name in itertools.pairwise(names)}
    return {
        "megapixels": round(image.gray.size / 1e6, 1),
        "mismatches": check.mismatches,
        "output_MB": round(size / 1e6),
        "libraries_MB": round(base),
        "peak_MB": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "seconds": seconds,
        "ratio_to_plain_copy": round(
            (sum(seconds.values()) - seconds["plain copy"]) / (seconds["decode"] + seconds["plain copy"]),
            2,
        ),
    }


def main() -> None:
    if sys.argv[1:2] == ["--one"]:
        print(json.dumps(compose(Path(sys.argv[2]))))
        return
    for megapixels in [float(one) for one in sys.argv[1:]] or [15.0, 60.0, 120.0]:
        with tempfile.TemporaryDirectory() as folder:
            page = Path(folder) / "page.tif"
            make_page(page, megapixels)
            environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1])}
            subprocess.run([sys.executable, __file__, "--one", str(page)], check=True, env=environment)


if __name__ == "__main__":
    main()
