"""A row on its way through the worker: one value for each state, each holding the one before."""

from dataclasses import dataclass, replace
from typing import Any

import torch

from diffcolor.checkpoint import Checkpoint
from diffcolor.colorize import Colored, Fitted
from diffcolor.reference import Reference
from diffcolor.scan import Scan
from pipelines.images.frame import Box
from pipelines.images.view import View
from pipelines.ledger.task import Task


@dataclass(frozen=True, kw_only=True)
class FitRequest:
    """What is trained: a scan, the key under which its fit is kept, and where an interrupted training goes on from."""

    fit_key: str
    scan: Scan
    checkpoint: Checkpoint | None = None


@dataclass(frozen=True, kw_only=True)
class Training:
    """What the training of a row took: steps made by this worker, the checkpoint it went on from, its loss curves."""

    steps: int = 0
    resumed_at: str | None = None
    losses: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Example:
    """A colour picture whose colours are to be taken where it is alike.

    Attributes:
        name: its URI without secrets, or its key in the output.
        sha256: of its file.
    """

    name: str
    sha256: str
    reference: Reference


@dataclass(frozen=True, kw_only=True)
class DecodedRow:
    """A row whose scan has been read.

    Attributes:
        picture_box: of the photograph that was found on its sheet: x, y, width, height.
        input_sha256: of the scan's file.
        gray_sha256: of its gray values.
        warnings: for the result, in addition to the manifest row's own.
        reference: of the manifest row.
    """

    task: Task
    view: View
    input_sha256: str
    gray_sha256: str
    request: FitRequest
    warnings: tuple[str, ...]
    reference: Example | None = None
    picture_box: Box | None = None

    @property
    def id(self) -> str:
        return self.task.row.id

    @property
    def scan(self) -> Scan:
        return self.request.scan

    @property
    def working_size(self) -> tuple[int, int]:
        height, width = self.scan.gray.shape[-2:]
        return height, width

    @property
    def decoded_bytes(self) -> int:
        return self.view.image.gray.nbytes


@dataclass(frozen=True, kw_only=True)
class StoredFit:
    """The artifact of a fit in the store, and the primary picture that it names."""

    artifact_sha256: str
    primary_image: str
    primary_sha256: str
    primary_preview: str | None


@dataclass(frozen=True, kw_only=True)
class FittedRow:
    """A row that is fitted.

    Attributes:
        stored: its fit in the store; None for one that this worker has trained and has yet to store.
    """

    decoded: DecodedRow
    fitted: Fitted
    stored: StoredFit | None
    training: Training = Training()

    @property
    def id(self) -> str:
        return self.decoded.id

    @property
    def task(self) -> Task:
        return self.decoded.task

    @property
    def scan(self) -> Scan:
        return self.decoded.scan

    @property
    def working_size(self) -> tuple[int, int]:
        return self.decoded.working_size

    @property
    def decoded_bytes(self) -> int:
        return self.decoded.decoded_bytes


Row = DecodedRow | FittedRow


@dataclass(frozen=True, kw_only=True)
class PaintedRow:
    """A row with the candidates of each of its target prompts, best first.

    Attributes:
        seconds: its share of the models' time, in which nothing else could be computed.
    """

    fitted: FittedRow
    ladders: list[list[Colored]]
    seconds: float

    @property
    def id(self) -> str:
        return self.fitted.id

    def off_the_device(self) -> "PaintedRow":
        """The same with all tensors on the CPU, so that rows that wait to be written take no memory of a GPU."""
        fitted, cpu = self.fitted.fitted, torch.device("cpu")
        moved = replace(
            fitted,
            lora=fitted.lora.to(cpu),
            optimized=fitted.optimized.to(cpu),
            primary=None if fitted.primary is None else fitted.primary.cpu(),
        )
        ladders = [[replace(colored, rgb=colored.rgb.cpu()) for colored in ladder] for ladder in self.ladders]
        return replace(self, fitted=replace(self.fitted, fitted=moved), ladders=ladders)
