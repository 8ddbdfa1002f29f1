"""Errors of the batch side that a user can do something about. Quick to import."""


class JobError(Exception):
    """The job could not start or continue. Nothing is lost: submitting again resumes it."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return self.reason


class StoreError(JobError):
    """The output store denies access, is full, or was unreachable for longer than the retry budget."""


class DamagedFileError(JobError):
    """A file of ours in the output cannot be read. `key` names it."""

    def __init__(self, place: str, key: str, error: BaseException) -> None:
        reason = (
            f"{place}/{key} is damaged ({type(error).__name__}: {error}); restore it from a backup, or move it away "
            "and submit again: what it held is done anew"
        )
        super().__init__(reason)
        self.place, self.key, self.error = place, key, error

    def __reduce__(self) -> tuple[type, tuple[str, str, BaseException]]:
        return type(self), (self.place, self.key, self.error)


class ReplanError(JobError):
    """Rows that have a result would be made anew."""

    def __init__(self, output: str, rows: int, why: str) -> None:
        super().__init__(
            f"{output} has results of {rows} rows that would be made anew: {why}. Say --replan if that is "
            "what you want (the old results stay visible until there are new ones), or name another --output"
        )
        self.arguments = output, rows, why

    def __reduce__(self) -> tuple[type, tuple[str, int, str]]:
        return type(self), self.arguments


class OutputInUseError(JobError):
    """Another run holds the output. `seconds` since its last heartbeat, by the store's clock."""

    def __init__(self, run: str, host: str, pid: int, seconds: float) -> None:
        super().__init__(run)
        self.run, self.host, self.pid, self.seconds = run, host, pid, seconds

    def __reduce__(self) -> tuple[type, tuple[str, str, int, float]]:
        return type(self), (self.run, self.host, self.pid, self.seconds)

    def __str__(self) -> str:
        return (
            f"the output is in use by run {self.run} on {self.host} (process {self.pid}), last heartbeat "
            f"{self.seconds:.0f} s ago; see --on-running, or stop it with: diffcolor-batch stop OUT"
        )


class RecolorError(Exception):
    """A row that cannot be recoloured."""

    def __init__(self, row_id: str, reason: str) -> None:
        super().__init__(row_id, reason)
        self.row_id, self.reason = row_id, reason

    def __str__(self) -> str:
        return self.reason
