"""What can be wrong with a scan."""


class InputImageError(Exception):
    """An image that cannot be colorized. `kind` is stable (docs/errors.md), the message names the remedy."""

    def __init__(self, kind: str, message: str, skipped: bool = False) -> None:
        super().__init__(kind, message, skipped)
        self.kind, self.message, self.skipped = kind, message, skipped

    def __str__(self) -> str:
        return self.message
