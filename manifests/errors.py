"""Problems of a manifest: all are collected, then raised once."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

EXAMPLES = 3  # of each kind


@dataclass
class Kinds:
    """How often each kind of thing was found, with the first few examples: bounded, whatever the number."""

    counts: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def add(self, kind: str, example: str) -> None:
        self.counts[kind] = self.counts.get(kind, 0) + 1
        if len(shown := self.examples.setdefault(kind, [])) < EXAMPLES:
            shown.append(example)

    def lines(self) -> Iterator[str]:
        """For people: each example if there are few of a kind, else how many there are and some of them."""
        for kind, count in sorted(self.counts.items(), key=lambda item: -item[1]):
            if count > EXAMPLES:
                yield f"{kind}: {count} times, for example"
            yield from (f"  {example}" if count > EXAMPLES else example for example in self.examples[kind])


@dataclass(frozen=True)
class Problem:
    """One fault: where, what, and what to do about it. `row` counts from 0; None when the whole file is at fault."""

    kind: str
    row: int | None
    id: str | None
    message: str

    def __str__(self) -> str:
        where = "manifest" if self.row is None else f"row {self.row}" + (f" (id {self.id!r})" if self.id else "")
        return f"{where}: {self.kind}: {self.message}"


class ManifestError(Exception):
    """A manifest that cannot be run. Nothing has been started."""

    def __init__(self, uri: str, problems: list[Problem]) -> None:
        super().__init__(uri, problems)
        self.uri, self.problems = uri, problems

    def __str__(self) -> str:
        lines = [f"{self.uri}: {len(self.problems)} problem(s), nothing was started"]
        return "\n".join([*lines, *(f"  {line}" for line in by_kind(self.problems).lines())])


def by_kind(problems: Iterable[Problem]) -> Kinds:
    """Problems, counted."""
    kinds = Kinds()
    for problem in problems:
        kinds.add(problem.kind, str(problem))
    return kinds
