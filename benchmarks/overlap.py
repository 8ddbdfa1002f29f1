"""Do K images come together, and do the models wait for files?

python -m benchmarks.overlap together MANIFEST [-k 8] [--area 262144] [--multiple 64]
python -m benchmarks.overlap idle [--megapixels 15] [--seconds 6] [--images 24] [-k 4] [--writers N ...]

`together` decodes the pictures of a manifest as a worker does, and prints how many go through the models together at
the working sizes of a base model (Stable Diffusion 1.5's, if not said otherwise): K at a time as they come in the
manifest, and out of those that a worker reads ahead. `idle` runs the real worker on scans of so many megapixels, with
models that take so long for an image and do nothing else, and prints for which share of the time they were idle.
"""

import argparse
import os
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from diffcolor.config import NO_BASE, preset_for
from diffcolor.geometry import working_size
from manifests.read import read_rows
from manifests.schema import ManifestRow
from pipelines.driver.cluster import rows_ahead
from pipelines.images.rules import Rules
from pipelines.job import JobSpec
from pipelines.ledger.task import Place, Task
from pipelines.store.retry import Patience
from pipelines.worker.reading import read_scan
from pipelines.worker.worker import Worker


@dataclass(frozen=True)
class _Sized:
    """A row of which nothing counts but its working size."""

    id: str
    size: tuple[int, int]
    decoded_bytes: int = 0


def _groups(rows: Sequence[_Sized], k: int) -> list[list[_Sized]]:
    by_size: dict[tuple[int, int], list[_Sized]] = {}
    for row in rows:
        by_size.setdefault(row.size, []).append(row)
    return [alike[first : first + k] for alike in by_size.values() for first in range(0, len(alike), k)]


def together(manifest: str, k: int, area: int, multiple: int) -> None:
    """Prints mean numbers of images in lockstep."""

    def read(row: ManifestRow) -> _Sized:
        view, _ = read_scan(row, Rules(), Patience(total=60.0), lambda _error, _delay: None)
        return _Sized(row.id, working_size(*view.shape, area, multiple))

    rows = [read(row) for row in read_rows(manifest)]
    before = [group for first in range(0, len(rows), k) for group in _groups(rows[first : first + k], k)]
    ahead = rows_ahead(JobSpec(output="", base_model="", judge="", config=preset_for("balanced"), images_per_step=k))
    waiting, now = [], []
    for row in rows:  # as `Overlap` does where reading is quick and the models are slow
        waiting.append(row)
        if len(waiting) == ahead:
            best = max(_groups(waiting, k), key=len)
            now.append(best)
            waiting = [one for one in waiting if one not in best]
    now += _groups(waiting, k)
    sizes = Counter(row.size for row in rows)
    print(
        f"{len(rows)} pictures of {len(sizes)} working sizes:", *(f"{h}x{w}: {n}" for (h, w), n in sizes.most_common())
    )
    for name, groups in (("in the manifest's order", before), (f"{ahead} rows read ahead", now)):
        alike = sum(len(group) ** 2 for group in groups) / len(rows)
        print(f"K = {k}, {name}: {len(rows) / len(groups):.2f} images in a lockstep, a picture's is {alike:.2f}")
    print(f"no order gives more than {len(rows) / sum(-(-n // k) for n in sizes.values()):.2f}")


def idle(megapixels: float, seconds: float, images: int, k: int, writers: Sequence[int]) -> None:
    """Prints the idle share of models that take `seconds` for an image."""
    side = round((megapixels * 1e6 / 1.5) ** 0.5)
    folder = Path(tempfile.mkdtemp(prefix="diffcolor-overlap-"))
    try:
        rng = np.random.default_rng(0)
        rough = Image.fromarray(rng.integers(0, 255, (48, 72), np.uint8)).resize(
            (side * 3 // 2, side), Image.Resampling.BICUBIC
        )
        grain = rng.normal(0, 4, (side, side * 3 // 2))
        scan = np.clip(np.asarray(rough) + grain, 0, 255).astype(np.uint8)
        for number in range(images):
            Image.fromarray(np.roll(scan, number * 37, 1)).save(folder / f"{number}.tif", compression="tiff_lzw")
        size = f"{images} scans of {scan.size / 1e6:.1f} megapixels"
        print(f"{size}, {seconds:g} s of models each, K = {k}, {os.cpu_count()} cores")
        for count in writers:
            _run_idle(folder, seconds, images, k, count)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _run_idle(folder: Path, seconds: float, images: int, k: int, writers: int) -> None:
    torch.set_num_threads(writers + 1)
    config = preset_for("balanced", NO_BASE)
    spec = JobSpec(
        output=str(folder / f"out{writers}"), base_model=NO_BASE, judge="mini", config=config, images_per_step=k
    )
    worker = Worker(spec)
    compute = worker._compute

    def as_slow_as_asked(rows: Sequence, waited: float = 0.0) -> Iterator:
        started = time.monotonic()
        outcomes = list(compute(rows, waited))
        time.sleep(max(0.0, seconds * len(rows) - (time.monotonic() - started)))
        yield from outcomes

    worker.overlap._compute = as_slow_as_asked
    rows = [
        ManifestRow(id=f"{n}", image=f"{folder}/{n}.tif", caption="a street", target_prompts=("a street",), seed=n)
        for n in range(images)
    ]
    tasks = [
        Task(row=row, row_digest=row.id, place=Place(plan="p", shard=0, generation=0, row=n))
        for n, row in enumerate(rows)
    ]
    started, cpu = time.monotonic(), time.process_time()
    results = worker.process(tasks)
    took, cpu = time.monotonic() - started, time.process_time() - cpu
    assert all(row.status == "ok" for row in results), [row.error_message for row in results]
    usage = worker.overlap.usage
    share, tail = usage.idle / (usage.idle + usage.computing), took - usage.idle - usage.computing
    print(
        f"  {writers} writing: {took / images:.1f} s an image; the models idle {share:.0%} until the last image, and "
        f"{tail:.0f} s after it; {cpu / images:.1f} s of cores an image for its files"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("together")
    one.add_argument("manifest")
    one.add_argument("-k", type=int, default=8)
    one.add_argument("--area", type=int, default=512 * 512)
    one.add_argument("--multiple", type=int, default=64)
    other = commands.add_parser("idle")
    other.add_argument("--megapixels", type=float, default=15)
    other.add_argument("--seconds", type=float, default=6)
    other.add_argument("--images", type=int, default=24)
    other.add_argument("-k", type=int, default=4)
    other.add_argument("--writers", type=int, nargs="+", default=[1])
    given = parser.parse_args()
    if given.command == "together":
        together(given.manifest, given.k, given.area, given.multiple)
    else:
        idle(given.megapixels, given.seconds, given.images, given.k, given.writers)


if __name__ == "__main__":
    main()
