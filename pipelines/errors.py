"""Errors of the batch side that a user can do something about. Importing this imports nothing heavy."""


class JobError(Exception):
    """The job could not run at all; nothing was lost, submitting again goes on."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return self.reason


class RecolorError(Exception):
    """A row that cannot be recoloured."""

    def __init__(self, row_id: str, reason: str) -> None:
        super().__init__(row_id, reason)
        self.row_id, self.reason = row_id, reason

    def __str__(self) -> str:
        return self.reason
