"""Errors of the batch side that a user can do something about. Importing this imports nothing heavy."""


class JobError(Exception):
    """The job could not run, or could not go on; nothing was lost, submitting again goes on."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return self.reason


class StoreError(JobError):
    """The output store refuses us, is full, or did not answer for as long as we were willing to wait."""


class OutputInUseError(JobError):
    """Another run holds the output. `seconds` since it was last heard of, by the store's clock."""

    def __init__(self, run: str, host: str, pid: int, seconds: float) -> None:
        super().__init__(run)
        self.run, self.host, self.pid, self.seconds = run, host, pid, seconds

    def __reduce__(self):
        return type(self), (self.run, self.host, self.pid, self.seconds)

    def __str__(self) -> str:
        return (
            f"the output is in use by run {self.run} on {self.host} (process {self.pid}), last heard of "
            f"{self.seconds:.0f} s ago; see --on-running, or end it with: diffcolor-batch stop OUT"
        )


class RecolorError(Exception):
    """A row that cannot be recoloured."""

    def __init__(self, row_id: str, reason: str) -> None:
        super().__init__(row_id, reason)
        self.row_id, self.reason = row_id, reason

    def __str__(self) -> str:
        return self.reason
