"""What the pictures together are worth: error and colourfulness as a pair, beside the floors on the same pictures."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.curation.evaluate.floors import FLOORS, ORACLES

OURS = "ours"
_DRAWS = 2000
ENOUGH = 6  # groups, below which an interval says nothing
Rows = Sequence[dict[str, Any]]
Statistic = Callable[[NDArray[np.int64]], float]


@dataclass(frozen=True, kw_only=True)
class Pooled:
    """A figure of all pictures together with its 95 % interval (percentile bootstrap over groups of pictures)."""

    value: float
    low: float
    high: float

    def text(self, form: str = ".3f") -> str:
        return f"{self.value:{form}} ({self.low:{form}} to {self.high:{form}})"


@dataclass(frozen=True, kw_only=True)
class Line:
    """One way to colorize, on all pictures.

    Attributes:
        error: summed a*b* error over that of gray.
        colorfulness: mean colourfulness over the truths'.
    """

    name: str
    error: Pooled
    colorfulness: Pooled


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Ours, the floors and the oracles; `against_table` is ours less the table's error, picture by picture.

    Attributes:
        hue_agreement: mean share of chromatic pixels with nearly the true hue.
        nearer: share of the pictures that are nearer to the truth than gray.
    """

    pictures: int
    groups: int
    lines: tuple[Line, ...]
    against_table: Pooled
    hue_agreement: Pooled
    nearer: float

    @property
    def beats_table(self) -> bool:
        return self.against_table.high < 0 and self.groups >= ENOUGH

    def sentence(self) -> str:
        """Whether the colours are better than a table's that knows nothing but gray values."""
        by_name = {line.name: line.error.value for line in self.lines}
        figures = f"error {by_name[OURS]:.3f} of gray's, the gray-value table {by_name['table']:.3f}"
        apart = f"difference {self.against_table.text('+.3f')}"
        if self.groups < ENOUGH:
            return f"too few pictures to tell ours from the gray-value table: {figures}"
        if self.beats_table:
            return f"better than the gray-value table: {figures}; {apart}"
        if self.against_table.low > 0:
            return f"WORSE than the gray-value table, which sees no picture: {figures}; {apart}"
        return f"NOT shown to be better than the gray-value table, which sees no picture: {figures}; {apart}"


def verdict(rows: Rows, groups: Sequence[object] | None = None) -> Verdict:
    """Pools the figures of pictures (`figures.against_truth`).

    Args:
        groups: for each row what it is alike with, such as its shoot; intervals are over groups. Default: each alone.
    """
    members: dict[object, list[int]] = {}
    for number in range(len(rows)):
        members.setdefault(groups[number] if groups else number, []).append(number)
    grouped = [np.array(group) for group in members.values()]
    drawn = np.random.default_rng(0).integers(0, len(grouped), (_DRAWS, len(grouped)))
    draws = [np.concatenate([grouped[group] for group in draw]) for draw in drawn]

    def pooled(statistic: Statistic) -> Pooled:
        low, high = np.percentile([statistic(chosen) for chosen in draws], [2.5, 97.5])
        return Pooled(value=statistic(np.arange(len(rows))), low=float(low), high=float(high))

    def column(name: str) -> NDArray[np.float64]:
        return np.array([row[name] for row in rows], np.float64)

    def share(above: NDArray[np.float64], below: NDArray[np.float64]) -> Statistic:
        return lambda chosen: float(above[chosen].sum() / max(below[chosen].sum(), 1e-9))

    gray, true = column("gray_error"), column("colorfulness_truth")
    errors = {OURS: column("ab_error")} | {name: column(f"{name}_error") for name in (*FLOORS, *ORACLES)}
    colors = {OURS: column("colorfulness")} | {name: column(f"{name}_colorfulness") for name in (*FLOORS, *ORACLES)}
    hues = column("hue_agreement")
    return Verdict(
        pictures=len(rows),
        groups=len(grouped),
        lines=tuple(
            Line(name=name, error=pooled(share(errors[name], gray)), colorfulness=pooled(share(colors[name], true)))
            for name in errors
        ),
        against_table=pooled(share(errors[OURS] - errors["table"], gray)),
        hue_agreement=pooled(
            lambda chosen: float(np.nanmean(hues[chosen])) if np.isfinite(hues[chosen]).any() else 0.0
        ),
        nearer=float((errors[OURS] < gray).mean()),
    )
