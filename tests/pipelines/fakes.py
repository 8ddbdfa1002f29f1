"""Workers that misbehave on purpose; Ray's worker processes import them by name."""

import os
import signal

from pipelines.worker import Worker


class PoisonedWorker(Worker):
    """Dies whenever it reads row r1."""

    def _prepare(self, task):
        if task.row.id == "r1":
            os.kill(os.getpid(), signal.SIGKILL)
        return super()._prepare(task)
