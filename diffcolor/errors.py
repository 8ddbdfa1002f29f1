"""The core's errors. Their arguments are positional, so that they can be pickled from process to process."""


class DiffColorError(Exception):
    """Base of every error that the core raises on purpose."""

    kind = "internal"


class NonFiniteLossError(DiffColorError):
    """A loss became NaN or infinite. The row fails; no picture is made from such weights."""

    kind = "non_finite"

    def __init__(self, stage: str, step: int, image: int) -> None:
        super().__init__(stage, step, image)
        self.stage, self.step, self.image = stage, step, image

    def __str__(self) -> str:
        return f"the loss is not finite in {self.stage} at step {self.step}; lower the learning rate or use float32"


class BaseModelError(DiffColorError):
    """A base model or judge cannot be loaded, or has a shape we cannot use."""

    kind = "base_model"

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(name, reason)
        self.name, self.reason = name, reason

    def __str__(self) -> str:
        return f"model {self.name!r} cannot be used: {self.reason}"


class ArtifactError(DiffColorError):
    """A saved artifact is damaged, or belongs to another base model."""

    kind = "artifact"

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return f"the artifact cannot be used: {self.reason}"


class CheckpointError(DiffColorError):
    """A saved training state is damaged or belongs to another fit. The fit starts afresh."""

    kind = "checkpoint"

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return f"the checkpoint cannot be used: {self.reason}"


class LumaMismatchError(DiffColorError):
    """A composed picture does not hold the scan's gray values. This is a bug of ours; the picture is refused."""

    kind = "luma_mismatch"

    def __init__(self, pixels: int) -> None:
        super().__init__(pixels)
        self.pixels = pixels

    def __str__(self) -> str:
        return f"the luminance of {self.pixels} pixels differs from the scan's; please report this"
