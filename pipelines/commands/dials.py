"""A preset's numbers changed from the command line or by a file: `--steps`, `--strength` ..., `--config`."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from diffcolor.config import STAGES, Config
from pipelines.commands.terminal import METHOD

StepsOption = Annotated[
    str | None,
    typer.Option(
        metavar="STAGE=N,...",
        help=f"Training steps of some stages ({', '.join(STAGES)}) instead of the preset's.",
        rich_help_panel=METHOD,
    ),
]
LearningRateOption = Annotated[
    str | None,
    typer.Option(
        metavar="STAGE=RATE,...", help="Learning rates of some stages, or one for all.", rich_help_panel=METHOD
    ),
]
RankOption = Annotated[
    int | None, typer.Option(min=1, help="Rank of the adapters; the artifact grows with it.", rich_help_panel=METHOD)
]
StrengthOption = Annotated[
    float | None,
    typer.Option(
        min=0.01,
        max=1,
        help="Share of the noise schedule that sampling runs; more is freer.",
        rich_help_panel=METHOD,
    ),
]
GuidanceOption = Annotated[
    float | None, typer.Option(min=1, help="Classifier-free guidance; 1 is off.", rich_help_panel=METHOD)
]
ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE.toml",
        help="Any settings of the method, in place of the preset's; see docs/configuration.md.",
        rich_help_panel=METHOD,
    ),
]


@dataclass(frozen=True, kw_only=True)
class Dials:
    """What the options say; None leaves the preset's value."""

    file: Path | None = None
    steps: str | None = None
    learning_rate: str | None = None
    rank: int | None = None
    strength: float | None = None
    guidance: float | None = None
    etas: tuple[float, ...] | None = None

    def turn(self, config: Config) -> Config:
        """The configuration with these values: first the file's, then the options'. A changed one is no preset any more
        and is called "custom".

        Raises:
            typer.BadParameter: a value that cannot be; it names the option.
        """
        turned = _overlaid(config, _read(self.file), self.file) if self.file else config
        steps = _by_stage(self.steps, "--steps", int)
        rates = _by_stage(self.learning_rate, "--learning-rate", float)
        sampling = {"strength": self.strength, "guidance_scale": self.guidance}
        sampling = {name: value for name, value in sampling.items() if value is not None}
        training: dict[str, Any] = {f"{stage}_steps": value for stage, value in steps.items()}
        training |= {f"{stage}_learning_rate": value for stage, value in rates.items()}
        if self.rank is not None:
            training["lora_rank"] = self.rank
        try:
            fit = replace(turned.fit, **training, primary=replace(turned.fit.primary, **sampling))
            turned = replace(turned, fit=fit, sample=replace(turned.sample, **sampling))
            turned = replace(turned, etas=self.etas) if self.etas else turned
        except ValueError as error:
            raise typer.BadParameter(str(error)) from error
        return turned if turned == config else replace(turned, preset="custom")


def _by_stage(text: str | None, option: str, kind: type[int] | type[float]) -> dict[str, Any]:
    """`stage=number,...`; a number alone is every stage's."""
    if not text:
        return {}
    values: dict[str, Any] = {}
    for part in text.split(","):
        stage, equals, number = part.strip().rpartition("=")
        if equals and stage.strip() not in STAGES:
            raise typer.BadParameter(f"{option}: there is no stage {stage.strip()!r}; stages are {', '.join(STAGES)}")
        if not equals and option == "--steps":
            raise typer.BadParameter(f"{option}: {part!r} names no stage; write color_prior={part.strip()}")
        try:
            value = kind(number)
        except ValueError as error:
            raise typer.BadParameter(f"{option}: {number.strip()!r} is no number") from error
        if not (value >= 0 if kind is int else 0 < value < float("inf")):
            raise typer.BadParameter(f"{option}: {number.strip()} must be {'0 or more' if kind is int else 'above 0'}")
        values |= dict.fromkeys([stage.strip()] if equals else STAGES, value)
    return values


def _read(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise typer.BadParameter(f"--config: {file} cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise typer.BadParameter(f"--config: {file} is not TOML ({error})") from error


def _overlaid(config: Any, given: Mapping[str, Any], file: Path, section: str = "") -> Any:
    """A dataclass of settings with the given values; each must be a setting's, of the kind that its value is now."""
    known = {one.name: getattr(config, one.name) for one in fields(config)}
    values: dict[str, Any] = {}
    for name, value in given.items():
        if name not in known:
            place = f"[{section.rstrip('.')}]" if section else "at the top"
            raise typer.BadParameter(f"--config: {file}: there is no {section}{name}; {place} has {', '.join(known)}")
        now = known[name]
        if is_dataclass(now):
            if not isinstance(value, dict):
                raise typer.BadParameter(f"--config: {file}: {section}{name} is a table: [{section}{name}]")
            values[name] = _overlaid(now, value, file, f"{section}{name}.")
        elif _fits(value, now):
            values[name] = _like(value, now)
        else:
            raise typer.BadParameter(f"--config: {file}: {section}{name} is {value!r}, must be like {now!r}")
    try:
        return replace(config, **values)
    except ValueError as error:
        raise typer.BadParameter(f"--config: {file}: {error}") from error


def _fits(value: Any, example: Any) -> bool:
    if isinstance(example, tuple):
        return isinstance(value, list) and all(_fits(one, example[0]) for one in value)
    if isinstance(example, float):
        return isinstance(value, int | float) and not isinstance(value, bool)
    return type(value) is type(example)


def _like(value: Any, example: Any) -> Any:
    if isinstance(example, tuple):
        return tuple(_like(one, example[0]) for one in value)
    return float(value) if isinstance(example, float) else value
