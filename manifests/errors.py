"""Problems of a manifest: all are collected, then raised once."""

from dataclasses import dataclass

SHOWN = 50


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
        lines += [f"  {problem}" for problem in self.problems[:SHOWN]]
        if len(self.problems) > SHOWN:
            lines.append(f"  ... and {len(self.problems) - SHOWN} more")
        return "\n".join(lines)
