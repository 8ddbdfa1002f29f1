"""What each part of the method buys, on pictures that the embedded model never saw.

python -m benchmarks.ablation --pack PACK.parquet --stamps FOLDER --runs FOLDER [--only NAME ...]

Everything is kept in --runs, by the weights' digests and by what a variant is: an interrupted run goes on where it was,
and a variant that has changed since is run again.
"""

import argparse
import hashlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import MISSING, dataclass, fields
from itertools import groupby
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from PIL import Image
from skimage.color import rgb2lab
from torch import Tensor

from benchmarks.validation import Case, photographs, scenes
from benchmarks.variants import PARTS, Variant, replaced, variants
from benchmarks.witness import perceptual_distance
from diffcolor import upsample
from diffcolor.checkpoint import join
from diffcolor.colorize import fit, paint
from diffcolor.conditioning import Conditioning
from diffcolor.config import ANTI_COLOR_PROMPTS, METHOD_VERSION, SampleConfig, digest
from diffcolor.errors import NonFiniteLossError
from diffcolor.geometry import working_gray, working_size
from diffcolor.lora import LoRA, init_lora, stack
from diffcolor.luminance import chroma_planes, luma, recombine
from diffcolor.measures import clip_margins, stray_color
from diffcolor.models import Models, load_models
from diffcolor.prompts import embed_prompts
from diffcolor.scan import Scan, ScanBatch
from manifests.validate import seed_of
from pipelines.curation.evaluate.figures import against_truth, hint_agreement, mean_ab

FIGURES_VERSION = 2  # raised by hand when figures are added or would be others (see `Bench.made_by`)


@dataclass(frozen=True)
class Trained:
    """An image's adapters after stage 1 and after stage 2, e_opt, and what the training and its stage 1 took."""

    color_prior: LoRA
    in_context: LoRA
    optimized: Conditioning
    seconds: float
    color_prior_seconds: float


class Bench:
    """The models, the cases, and everything that was computed so far."""

    def __init__(self, models: Models, cases: Sequence[Case], runs: Path, part: str) -> None:
        self.models, self.base, self.judge, self.cases = models, models.base, models.judge, list(cases)
        names = (self.base.digest[:12], self.judge.digest[:12], models.coarse.digest[:12], self.base.device.type, part)
        self.runs = runs / "-".join(names)
        (self.runs / "pictures" / "truth").mkdir(parents=True, exist_ok=True)
        for case in cases:
            Image.fromarray(case.truth).save(self.runs / "pictures" / "truth" / f"{case.id}.png")

    def scan(self, case: Case, seed: str = "id") -> Scan:
        """What the model sees of a case."""
        gray = luma(case.truth)
        size = working_size(*gray.shape, self.base.training_area, self.base.size_multiple)
        return Scan(
            gray=torch.from_numpy(working_gray(gray, *size))[None],
            context_prompt=case.caption,
            anti_color_prompts=ANTI_COLOR_PROMPTS,
            seed=seed_of(getattr(case, seed)),
        )

    def groups(self, cases: Sequence[Case], k: int) -> Iterator[list[Case]]:
        """At most k cases of one working size."""
        by_size = sorted(cases, key=lambda case: (tuple(self.scan(case).gray.shape), case.id))
        for _, same in groupby(by_size, key=lambda case: tuple(self.scan(case).gray.shape)):
            chosen = list(same)
            yield from (chosen[first : first + k] for first in range(0, len(chosen), k))

    def train(self, cases: Sequence[Case], variant: Variant) -> list[Trained]:
        """Trains what is not in the cache yet."""
        name = f"{digest(variant.fit)[:12]}-k{variant.k}-{variant.seed}"
        name += f"-{variant.instead}" if variant.instead else ""
        files = [self.runs / "trained" / name / f"{case.id}-{case.digest[:8]}.pt" for case in cases]
        if not all(file.exists() for file in files):
            for file, trained in zip(files, self._train(cases, variant), strict=True):
                file.parent.mkdir(parents=True, exist_ok=True)
                torch.save(trained, file.with_suffix(".part"))
                file.with_suffix(".part").rename(file)
        return [torch.load(file, weights_only=False, map_location="cpu") for file in files]

    def _train(self, cases: Sequence[Case], variant: Variant) -> list[Trained]:
        scans = [self.scan(case, variant.seed) for case in cases]
        started, fitting, boundary, stage_1 = time.perf_counter(), fit(self.models, scans, variant.fit), {}, 0.0
        for progress in fitting:
            if progress.stage == "embedding" and progress.step == 0:
                stage_1 = (time.perf_counter() - started) / len(cases)
                saved = {k: progress.checkpoint(k) for k in range(len(cases))}
                boundary = {k: LoRA.from_named(join([one]).tensors) for k, one in saved.items() if one}
        seconds = (time.perf_counter() - started) / len(cases)
        for outcome in fitting.outcomes:
            if isinstance(outcome, NonFiniteLossError):
                raise outcome
        return [
            Trained(boundary[k], fitted.lora, fitted.optimized, seconds, stage_1)
            for k, fitted in enumerate(fitting.outcomes)
        ]

    def paint(self, cases: Sequence[Case], variant: Variant) -> tuple[Tensor, list[float]]:
        """(N, 3, H, W), and seconds of training per picture."""
        scans, prompts = [self.scan(case, variant.seed) for case in cases], [prompt_of(case, variant) for case in cases]
        batch = ScanBatch.of(self.models, scans, variant.sample, prompts)
        if variant.prompt == "gray":
            return batch.gray.expand(-1, 3, -1, -1), [0.0] * len(cases)
        if variant.alone:
            return self.models.coarse.colorize(batch.gray, prompts), [0.0] * len(cases)
        e = embed_prompts(self.base, prompts)
        if variant.fit is None:
            lora = stack([init_lora(self.base.unet, 1, [torch.Generator().manual_seed(0)]) for _ in cases])
            seconds = [0.0] * len(cases)
        else:
            trained = self.train(cases, variant)
            lora = stack([getattr(one, variant.after) for one in trained]).to(self.base.device)
            seconds = [one.color_prior_seconds if variant.after == "color_prior" else one.seconds for one in trained]
            if variant.after == "in_context":
                e_opt = Conditioning.stack([one.optimized for one in trained]).to(self.base.device)
                e = e_opt.mixed(e, torch.full((len(cases),), variant.eta, device=self.base.device))
        return paint(self.base, lora, batch, e, variant.sample), seconds

    def made_by(self, variant: Variant) -> bytes:
        """What figures depend on. Defaults are left out, that a new field leaves the others' figures valid.

        FIGURES_VERSION is to be raised when a default or one of REPLACEMENTS changes.
        """
        given = {one.name: getattr(variant, one.name) for one in fields(variant)}
        given = {one: value for one, value in given.items() if value != getattr(Variant, one, MISSING)}
        cases = [case.digest for case in part_of(self.cases, variant.part)]
        return hashlib.sha256(f"{FIGURES_VERSION} {METHOD_VERSION} {given} {cases}".encode()).hexdigest().encode()

    def forget_stale(self, known: Sequence[Variant]) -> None:
        """Removes the figures of variants that are not what they were, or no more."""
        current = {variant.name: self.made_by(variant) for variant in known}
        for file in (self.runs / "figures").glob("*.parquet"):
            if pq.read_schema(file).metadata.get(b"made_by") != current.get(file.stem):
                file.unlink()

    def run(self, variant: Variant) -> None:
        """Figures of a variant, one row per case, to figures/NAME.parquet; pictures to pictures/NAME/."""
        file = self.runs / "figures" / f"{variant.name}.parquet"
        if file.exists():
            return
        started, rows = time.perf_counter(), []
        folder = self.runs / "pictures" / variant.name
        folder.mkdir(parents=True, exist_ok=True)
        for cases in self.groups(part_of(self.cases, variant.part), variant.k):
            with replaced(variant.instead, self.base), torch.set_grad_enabled(variant.fit is not None):
                pictures, seconds = self.paint(cases, variant)
                natives = [native(case, picture.cpu()) for case, picture in zip(cases, pictures, strict=True)]
            margins = self.margins(cases, variant, pictures)
            strays = stray_color(pictures.cpu(), torch.stack([self.scan(case).gray for case in cases])).tolist()
            for case, rgb, margin, stray, cost in zip(cases, natives, margins, strays, seconds, strict=True):
                Image.fromarray(rgb).save(folder / f"{case.id}.png")
                known = folder.parent / variant.against / f"{case.id}.png" if variant.against else None
                signals = {"margin": margin, "stray_color": stray, "seconds": cost}
                rows.append({"id": case.id, **signals, **figures(case, rgb, variant, known)})
        file.parent.mkdir(parents=True, exist_ok=True)
        names = dict.fromkeys(name for row in rows for name in row)  # pyarrow looks at the first row alone
        table = pa.table({name: [row.get(name) for row in rows] for name in names})
        pq.write_table(table.replace_schema_metadata({"made_by": self.made_by(variant)}), file.with_suffix(".part"))
        file.with_suffix(".part").rename(file)
        print(f"{variant.name}: {time.perf_counter() - started:.0f} s; {summary(rows)}", flush=True)

    @torch.no_grad()
    def margins(self, cases: Sequence[Case], variant: Variant, pictures: Tensor) -> list[float]:
        """What the judge thinks of the pictures and their prompts."""
        positive = self.judge.text_features([prompt_of(case, variant) for case in cases])
        batch = ScanBatch.of(self.models, [self.scan(case) for case in cases], SampleConfig())
        negatives = batch.anti_color_features(self.judge)
        return clip_margins(self.judge.image_features(pictures.to(self.judge.device)), positive, negatives).tolist()


def prompt_of(case: Case, variant: Variant) -> str:
    """The target prompt; where a photograph has no other hue to be asked for, its caption, and no title, nothing."""
    if variant.prompt in ("empty", "caption", "gray"):
        return "" if variant.prompt == "empty" else case.caption
    return getattr(case, variant.prompt) or case.hinted


def part_of(cases: Sequence[Case], part: str) -> list[Case]:
    """The cases of a part: photographs from all over the archive, the first scenes, whose hues take turns."""
    photos, composed = [case for case in cases if not case.is_scene], [case for case in cases if case.is_scene]
    if part in PARTS:
        few, scenes_ = PARTS[part]
        spread_out = np.linspace(0, len(photos) - 1, min(few, len(photos))).round().astype(int)
        return [photos[i] for i in spread_out] + composed[:scenes_]
    boxed = [case for case in photos if case.mask is not None]
    return {"photographs": photos, "scenes": composed, "boxed": boxed, "all": photos + composed}[part]


def native(case: Case, picture: Tensor) -> NDArray[np.uint8]:
    """A working picture's colours on the scan, at its own size."""
    gray = luma(case.truth)
    chroma = chroma_planes(picture.permute(1, 2, 0).float().cpu().numpy())
    return recombine(gray, upsample.ChromaUpsampler(gray, chroma).rows(0, len(gray)))


def figures(case: Case, rgb: NDArray[np.uint8], variant: Variant, known: Path | None) -> dict[str, float | str]:
    """Against the truth, for a scene the hint, and for a recoloured one the picture before."""
    found = against_truth(rgb, case.truth)
    found["group"] = case.group
    if not case.is_scene:
        found["witness"] = perceptual_distance(rgb, case.truth)
        found["witness_gray"] = perceptual_distance(np.repeat(luma(case.truth)[..., None], 3, -1), case.truth)
    for whose, picture in {"": rgb, "_truth": case.truth}.items():
        found[f"mean_a{whose}"], found[f"mean_b{whose}"] = mean_ab(picture).tolist()
    found["luminance_mismatches"] = int((luma(rgb) != luma(case.truth)).sum())
    if case.mask is not None:
        color = case.other_color if variant.prompt == "other" else case.hint_color
        found |= hint_agreement(rgb, case.mask, color)
        found["bleed_truth"] = hint_agreement(case.truth, case.mask, color)["bleed"]
        if known:
            change = np.hypot(*np.moveaxis((rgb2lab(rgb) - rgb2lab(np.asarray(Image.open(known))))[..., 1:], -1, 0))
            found["ground_change"], found["rest_change"] = change[~case.mask].mean(), np.median(change[~case.mask])
            found["thing_change"] = np.median(change[case.mask])
    return found


def summary(rows: list[dict]) -> str:
    """A line for the terminal."""
    parts = {"photographs": [], "scenes": []}
    for row in rows:
        parts[row["id"].partition("-")[0] + "s"].append(row)
    texts = []
    for part, some in parts.items():
        if some:
            ratio = sum(row["ab_error"] for row in some) / sum(row["ab_error"] / row["ab_ratio"] for row in some)
            mean = {
                name: np.mean([row[name] for row in some])
                for name in ("ab_ratio", "colorfulness", "colorfulness_truth", "hint_taken", "bleed", "seconds")
                if all(name in row for row in some)
            }
            texts.append(
                f"{part} {len(some)}: pooled ratio {ratio:.3f} " + " ".join(f"{k} {v:.2f}" for k, v in mean.items())
            )
    return " | ".join(texts)


def main() -> None:
    """Runs the variants that are not there yet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pack", type=Path, required=True, help="of `training.shoots.pack`")
    parser.add_argument("--part", choices=("validation", "test"), default="validation", help="test: for claims alone")
    parser.add_argument("--stamps", type=Path, required=True)
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--base-model", default="mini")
    parser.add_argument("--judge", default="mini")
    parser.add_argument("--only", nargs="*", default=[""], help="beginnings of names")
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    models = load_models(arguments.base_model, arguments.judge, arguments.device)
    bench = Bench(
        models, photographs(arguments.pack, arguments.part) + scenes(arguments.stamps), arguments.runs, arguments.part
    )
    known = variants(arguments.base_model)
    bench.forget_stale(known)
    for variant in known:
        if variant.name.startswith(tuple(arguments.only)):
            try:
                bench.run(variant)
            except NonFiniteLossError as error:
                print(f"{variant.name}: {error}", flush=True)


if __name__ == "__main__":
    main()
