"""All parameters of the method, in frozen dataclasses. `digest` identifies a configuration."""

import hashlib
import json
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import Literal

# arXiv 2308.01655, stage 1; wording of the authors' public notebooks.
ANTI_COLOR_PROMPTS = (
    "a grayscale photograph",
    "regional color inconsistency",
    "color bleeding",
    "brownish average colors for objects",
    "a picture with scratches",
)

MINI = "mini"  # the name of the embedded models
NO_BASE = "none"  # in place of a base model's name: the coarse colorizer alone


class Preset(StrEnum):
    """Names of the presets."""

    paper = "paper"
    balanced = "balanced"
    draft = "draft"


class Start(StrEnum):
    """What is noised when sampling starts: the gray scan (the paper), or the scan in coarse colours (ours)."""

    gray = "gray"
    coarse = "coarse"


class Precision(StrEnum):
    """Numbers in which the frozen models compute; what is trained is float32 always."""

    auto = "auto"
    bf16 = "bf16"
    fp16 = "fp16"
    fp32 = "fp32"


MOST_IMAGES = 16  # that are adapted together, if not said otherwise; more would not be faster

# The stages of a fit in their order; the second and third are the two parts of the paper's stage 2.
STAGES = ("color_prior", "embedding", "in_context")

# Raised by hand whenever the same configuration may give different pixels.
METHOD_VERSION = 2


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


@dataclass(frozen=True, kw_only=True)
class Hinting:
    """How colours that are known at a place spread (`hints.py`); the report's script takes the same values.

    Attributes:
        pixels: of the picture on which hints are spread; finer edges come from the upsampling.
        edge: standard deviation of gray, of full scale, within one thing.
        leak: affinity across the strongest edge, relative to that of equal neighbours.
        fade: how fast a difference is forgotten far from its hints.
        certainty: of a hint, relative to the affinity of equal neighbours.
        alike: gray values, of full scale, that belong to the same thing as the middle of a box.
    """

    pixels: int = 400 * 300
    edge: float = 0.015
    leak: float = 1e-6
    fade: float = 1e-5
    certainty: float = 1000.0
    alike: float = 0.06


HINTING = Hinting()


@dataclass(frozen=True, kw_only=True)
class SampleConfig:
    """How a picture is sampled from noised latents of the scan.

    Attributes:
        start: what is noised: the "gray" scan (the paper), or the scan in the colours that the "coarse" colorizer gives
            it for the prompt (ours, docs/decisions/0013).
        num_inference_steps: DDIM steps of the whole schedule; `strength` of them are run.
        guidance_scale: classifier-free guidance, >= 1 (1 = off).
        strength: share of the schedule that is run, in (0, 1]; 1 starts from pure noise.
        luminance_consistent: put the scan's luminance back into every predicted original
            (ours, beyond the paper: docs/decisions/0003).
        luminance_every: it is put back at every so many steps, and at the last; >= 1.
        align: bring the sample's chroma to the scan by correspondence.
    """

    start: Literal["gray", "coarse"] = "gray"
    num_inference_steps: int = 50
    guidance_scale: float = 3.0
    strength: float = 0.8
    luminance_consistent: bool = True
    luminance_every: int = 1
    align: bool = True

    def __post_init__(self) -> None:
        _require(self.start in ("gray", "coarse"), f'start is {self.start!r}, must be "gray" or "coarse"')
        _require(self.num_inference_steps >= 1, f"num_inference_steps is {self.num_inference_steps}, must be >= 1")
        _require(self.guidance_scale >= 1, f"guidance_scale is {self.guidance_scale}, must be >= 1")
        _require(self.luminance_every >= 1, f"luminance_every is {self.luminance_every}, must be >= 1")
        _require(0 < self.strength <= 1, f"strength is {self.strength}, must be in (0, 1]")


@dataclass(frozen=True, kw_only=True)
class FitConfig:
    """The training of one image: stage 1 and stage 2.

    Attributes:
        color_prior_steps, embedding_steps, in_context_steps: budgets of stage 1 and of stage 2's two parts.
        color_prior_learning_rate, embedding_learning_rate, in_context_learning_rate: Adam.
        lora_rank: rank of every adapted linear layer.
        contrastive_weight: lambda of `L = lambda * L_con + L_dif`.
        temperature: tau of the contrastive loss, on cosines; None for the judge's own, at which it was trained (0.01
            of most CLIP models, as in the authors' notebooks).
        contrastive_at: the steps in which `L_con`, whose weight is alpha_bar(t), is computed. "all" of them, or
            "drawn" ones: with the probability alpha_bar(t), and then with the weight 1. The expectation is the same,
            and of the decoder's and the judge's work, the most of stage 1, 37 % is left.
        denoising_target: target of `L_dif` in stage 1. "gray" (the paper) is the noise that was added to the gray
            latents, which pulls the picture towards gray; "prior" (ours) is the base's own prediction without
            adapters, which keeps the colours that the base would give.
        anti_color_prompts: the negatives; a row may bring its own.
        timesteps: the range of t in training. "all" (the paper), or "sampling" (ours): only the timesteps that sampling
            passes at the strength of `primary`, because what is learned at others is never used.
        plateau_window: a stage ends for an image when its mean loss over this many steps is no longer
            `plateau_improvement` better (relative) than over the window before; 0 never stops early.
        primary: how the primary colour image is sampled between the stages.
    """

    color_prior_steps: int = 1500
    embedding_steps: int = 500
    in_context_steps: int = 1000
    color_prior_learning_rate: float = 1e-4
    embedding_learning_rate: float = 1e-3
    in_context_learning_rate: float = 1e-4
    lora_rank: int = 8
    contrastive_weight: float = 0.5
    temperature: float | None = None
    contrastive_at: Literal["all", "drawn"] = "all"
    denoising_target: Literal["gray", "prior"] = "gray"
    anti_color_prompts: tuple[str, ...] = ANTI_COLOR_PROMPTS
    timesteps: Literal["all", "sampling"] = "all"
    plateau_window: int = 0
    plateau_improvement: float = 0.02
    primary: SampleConfig = field(default_factory=SampleConfig)

    def __post_init__(self) -> None:
        for name in ("color_prior_steps", "embedding_steps", "in_context_steps", "plateau_window"):
            _require(getattr(self, name) >= 0, f"{name} is {getattr(self, name)}, must be >= 0")
        _require(self.lora_rank >= 1, f"lora_rank is {self.lora_rank}, must be >= 1")
        _require(self.temperature is None or self.temperature > 0, f"temperature is {self.temperature}, must be > 0")
        _require(
            self.denoising_target in ("gray", "prior"),
            f'denoising_target is {self.denoising_target!r}, must be "gray" or "prior"',
        )
        _require(
            self.contrastive_at in ("all", "drawn"),
            f'contrastive_at is {self.contrastive_at!r}, must be "all" or "drawn"',
        )
        _require(self.timesteps in ("all", "sampling"), f'timesteps is {self.timesteps!r}, must be "all" or "sampling"')
        _require(bool(self.anti_color_prompts), "anti_color_prompts is empty: the contrastive loss needs a negative")

    def steps(self, stage: str) -> int:
        """The budget of one of `STAGES`."""
        return {
            "color_prior": self.color_prior_steps,
            "embedding": self.embedding_steps,
            "in_context": self.in_context_steps,
        }[stage]

    def learning_rate(self, stage: str) -> float:
        """The learning rate of one of `STAGES`."""
        return {
            "color_prior": self.color_prior_learning_rate,
            "embedding": self.embedding_learning_rate,
            "in_context": self.in_context_learning_rate,
        }[stage]

    @property
    def total_steps(self) -> int:
        return sum(self.steps(stage) for stage in STAGES)


@dataclass(frozen=True, kw_only=True)
class Config:
    """A whole configuration: the fit (trained once per image) and the sampling of every target prompt.

    Attributes:
        etas: the ladder of interpolation weights eta of `e = (1 - eta) e_opt + eta e_tgt`. Each is sampled; the best by
            `Colored.score` becomes the output, and previews of the others are kept.
    """

    preset: str = "paper"
    fit: FitConfig = field(default_factory=FitConfig)
    sample: SampleConfig = field(default_factory=SampleConfig)
    etas: tuple[float, ...] = (1.0, 1.2, 1.35)

    def __post_init__(self) -> None:
        _require(bool(self.etas), "etas is empty: at least one interpolation weight is needed")

    @property
    def uses_coarse(self) -> bool:
        """Whether the coarse colorizer has a part in the pictures."""
        return "coarse" in (self.fit.primary.start, self.sample.start)

    def starting_from(self, start: Start) -> "Config":
        """The same configuration with another start of all sampling."""
        primary, sample = (replace(one, start=start.value) for one in (self.fit.primary, self.sample))
        return replace(self, fit=replace(self.fit, primary=primary), sample=sample)


def _drafted(
    balanced: Config, color_prior_steps: int, embedding_steps: int, in_context_steps: int, *, sampling_steps: int
) -> Config:
    """The "draft" preset that belongs to a "balanced" one."""
    sample = replace(balanced.sample, num_inference_steps=sampling_steps)
    fit = replace(
        balanced.fit,
        color_prior_steps=color_prior_steps,
        embedding_steps=embedding_steps,
        in_context_steps=in_context_steps,
        primary=sample,
    )
    return replace(balanced, preset="draft", fit=fit, sample=sample, etas=(1.0,))


# The paper's numbers. The contrastive term by draws changes what a step costs, not what is learned; luminance at each
# step is ours and costs most of sampling.
_thrifty = SampleConfig(luminance_every=2)
_PAPER = Config(fit=FitConfig(contrastive_at="drawn", primary=_thrifty), sample=_thrifty)
_quick = SampleConfig(start="coarse", num_inference_steps=20, strength=0.5)
_shorter = FitConfig(
    color_prior_steps=140,
    embedding_steps=50,
    in_context_steps=80,
    color_prior_learning_rate=3e-4,
    embedding_learning_rate=2e-3,
    in_context_learning_rate=3e-4,
    plateau_window=40,
    primary=_quick,
)
# For any base model: the paper's method with fewer steps at higher rates, from coarse colours. Not tuned on any model.
_GENERAL = {
    "paper": _PAPER,
    "balanced": Config(preset="balanced", fit=_shorter, sample=_quick, etas=(0.9, 1.2)),
}
_GENERAL["draft"] = _drafted(_GENERAL["balanced"], 30, 15, 15, sampling_steps=12)

# For the embedded model, which was trained to go on from coarse colours with little noise (docs/decisions/0010): one
# step of fifty. More noise costs colour and truth alike, and other etas make no other picture (docs/results.md).
_mini_sample = replace(_quick, num_inference_steps=50, guidance_scale=1.0, strength=0.02)
_mini_fit = replace(
    _shorter,
    color_prior_steps=30,
    embedding_steps=20,
    in_context_steps=10,
    contrastive_weight=0.15,
    temperature=0.05,
    denoising_target="prior",
    timesteps="sampling",
    plateau_window=0,  # too few steps for a plateau
    primary=_mini_sample,
)
PRESETS = {
    "paper": _PAPER,
    "balanced": Config(preset="balanced", fit=_mini_fit, sample=_mini_sample, etas=(1.0,)),
}
PRESETS["draft"] = _drafted(PRESETS["balanced"], 15, 10, 5, sampling_steps=50)


# Without a base model nothing is trained or sampled.
_ALONE = Config(
    fit=FitConfig(
        color_prior_steps=0, embedding_steps=0, in_context_steps=0, primary=SampleConfig(start="coarse", align=False)
    ),
    sample=SampleConfig(start="coarse", align=False),
    etas=(1.0,),
)


def preset_for(name: str, base_model: str = MINI) -> Config:
    """A preset's configuration for a base model. `PRESETS` were tuned on the embedded model and hold for no other."""
    if base_model == NO_BASE:
        return replace(_ALONE, preset=name)
    return (PRESETS if base_model == MINI else _GENERAL)[name]


def digest(config: FitConfig | SampleConfig | Config) -> str:
    """sha256 (hex) over the canonical JSON of `config` and the method's version."""
    facts = {"method": METHOD_VERSION, **_known_before(asdict(config))}
    canonical = json.dumps(facts, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


_SINCE_ADDED = (("start", "gray"), ("luminance_every", 1), ("contrastive_at", "all"))


def _known_before(settings: dict) -> dict:
    """Without the settings that version 0.1.0 did not have and that leave its pixels as they were: one digest still."""
    return {
        name: _known_before(value) if isinstance(value, dict) else value
        for name, value in settings.items()
        if (name, value) not in _SINCE_ADDED
    }
