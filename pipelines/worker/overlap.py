"""Reading ahead, computing and writing, all at the same time, so that the models do not wait for files.

Rows come one by one, from as many threads as there are rows. They are read ahead in one thread; those of one kind are
computed together in another, as soon as K of them are read or no more will be; what is computed is written in several.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Condition
from time import monotonic

from pipelines.ledger.results import ResultRow
from pipelines.ledger.task import Task
from pipelines.worker.fitting import Stopped
from pipelines.worker.rows import PaintedRow, Row

ROOM = 1 << 30  # bytes of decoded scans that wait to be computed, and as many that wait to be written

Outcome = ResultRow | PaintedRow


@dataclass(eq=False)
class _Ticket:
    """A row on its way.

    Attributes:
        row: once it is read.
        result: of the row; None where a stop gives it back.
    """

    task: Task
    row: Row | None = None
    result: "Future[ResultRow | None]" = field(default_factory=Future)

    @property
    def bytes(self) -> int:
        return self.row.decoded_bytes if self.row is not None else 0

    def end(self, result: ResultRow | BaseException | None) -> None:
        if self.result.done():
            return
        if isinstance(result, BaseException):
            self.result.set_exception(result)
        else:
            self.result.set_result(result)


@dataclass(frozen=True)
class Usage:
    """Where time went, in seconds; one value at a time, for others to read.

    Attributes:
        computing: of the computing thread, with rows.
        idle: of that thread, while rows were being read or written and none could be computed.
        files: of the other threads, with rows.
    """

    computing: float = 0.0
    idle: float = 0.0
    files: float = 0.0


class Overlap:
    """Runs rows through `read`, `compute` and `write`.

    Args:
        read: makes a row of a task, or its result where it cannot be read.
        group: rows to groups, each of which is computed together.
        compute: a group, and the seconds for which there was nothing to compute before, to outcomes, as soon as each is
            there; rows without an outcome are given back. `Stopped` gives back all others, too.
        write: stores a painted row. It may return a row instead, which is then computed again.
        full: how many rows make a whole group.
        writers: threads that write.
        at_work: called with the ids of the rows that are being read, computed and written, whenever they change.
    """

    def __init__(
        self,
        *,
        read: Callable[[Task], Row | ResultRow],
        group: Callable[[Sequence[Row]], list[list[Row]]],
        compute: Callable[[Sequence[Row], float], Iterable[Outcome]],
        write: Callable[[PaintedRow], Row | ResultRow],
        full: Callable[[Row], int],
        writers: int,
        at_work: Callable[[list[str], list[str], list[str]], None],
    ) -> None:
        self._read, self._group, self._compute, self._write = read, group, compute, write
        self._full, self._at_work = full, at_work
        self._changed = Condition()
        self._on_their_way: set[_Ticket] = set()
        self._waiting: list[_Ticket] = []  # read and not computed, in the order of reading
        self._unread, self._unwritten, self._stopped = 0, 0, False
        self._reading, self._computing, self._writing = list[str](), list[str](), list[str]()
        self._reader = ThreadPoolExecutor(1, "read")
        self._computer = ThreadPoolExecutor(1, "compute")
        self._writers = ThreadPoolExecutor(writers, "write")
        self._idle_since: float | None = None
        self.usage = Usage()

    def run(self, tasks: Sequence[Task]) -> list[ResultRow]:
        """The results of the tasks, in order, but for those that a stop gives back.

        Raises:
            StoreError: the output store cannot be used.
        """
        tickets = [_Ticket(task) for task in tasks]
        with self._changed:
            if self.is_idle:
                self._stopped, self._idle_since = False, monotonic()
            self._on_their_way.update(tickets)
            self._unread += len(tickets)
        for ticket in tickets:
            self._reader.submit(self._read_one, ticket)
        wait([ticket.result for ticket in tickets], return_when=FIRST_EXCEPTION)
        ended = [ticket.result.result() for ticket in tickets if ticket.result.done()]
        return [result for result in ended if result is not None]

    @property
    def is_idle(self) -> bool:
        return not self._on_their_way

    def _end(self, ticket: _Ticket, result: ResultRow | BaseException | None) -> None:
        with self._changed:
            self._on_their_way.discard(ticket)
            if self.is_idle:
                self._idle_since = None
        ticket.end(result)

    def _count(self, computing: float = 0.0, idle: float = 0.0, files: float = 0.0) -> None:
        with self._changed:
            before = self.usage
            self.usage = Usage(before.computing + computing, before.idle + idle, before.files + files)

    @contextmanager
    def _in_hand(self, kind: list[str], *ids: str) -> Iterator[None]:
        with self._changed:
            kind += ids
            self._at_work(self._reading, self._computing, self._writing)
        started = monotonic()
        yield
        if kind is not self._computing:
            self._count(files=monotonic() - started)
        with self._changed:
            for one in ids:
                kind.remove(one)
            self._at_work(self._reading, self._computing, self._writing)

    # Reading ---------------------------------------------------------------------------------------------------------

    def _read_one(self, ticket: _Ticket) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._stopped or not self._no_room)
        row: Row | ResultRow | BaseException | None = None
        if not self._stopped:
            with self._in_hand(self._reading, ticket.task.row.id):
                try:
                    row = self._read(ticket.task)
                except BaseException as error:
                    row = error
        if row is None or isinstance(row, ResultRow | BaseException):
            self._end(ticket, row)
        with self._changed:
            self._unread -= 1
            if not ticket.result.done():
                assert row is not None
                ticket.row = row  # type: ignore[assignment]
                self._waiting.append(ticket)
        self._computer.submit(self._compute_all)

    @property
    def _no_room(self) -> bool:
        return sum(ticket.bytes for ticket in self._waiting) >= ROOM

    # Computing -------------------------------------------------------------------------------------------------------

    def _compute_all(self) -> None:
        try:
            self._compute_groups()
        except BaseException as error:  # which would be lost in this thread, and the rows would wait for ever
            for ticket in list(self._on_their_way):
                self._end(ticket, error)

    def _compute_groups(self) -> None:
        while group := self._next_group():
            now = monotonic()
            waited = now - (self._idle_since or now)
            with self._in_hand(self._computing, *(ticket.task.row.id for ticket in group)):
                self._compute_group(group, waited)
            self._idle_since = monotonic()
            self._count(computing=self._idle_since - now, idle=waited)

    def _next_group(self) -> list[_Ticket]:
        """Whole groups first. Others only where nothing is left to be read, or there is no room to read it: then the
        largest. Of those that are alike the one that waits longest."""
        with self._changed:
            self._changed.wait_for(lambda: self._unwritten < ROOM)
            if not self._waiting:
                return []
            if self._stopped:
                chosen, self._waiting = self._waiting, []
                for ticket in chosen:
                    self._end(ticket, None)
                return []
            place = {ticket.task.row.id: number for number, ticket in enumerate(self._waiting)}
            rows = [ticket.row for ticket in self._waiting if ticket.row is not None]
            groups = self._group(rows)
            whole = [group for group in groups if len(group) >= self._full(group[0])]
            if not whole and self._unread and not self._no_room:
                return []
            best = min(whole or groups, key=lambda group: (-len(group), min(place[row.id] for row in group)))
            tickets = [self._waiting[number] for number in sorted(place[row.id] for row in best)]
            self._waiting = [ticket for ticket in self._waiting if ticket not in tickets]
            self._changed.notify_all()
            return tickets

    def _compute_group(self, group: list[_Ticket], waited: float) -> None:
        left = {ticket.task.row.id: ticket for ticket in group}
        error: BaseException | None = None
        try:
            for outcome in self._compute([ticket.row for ticket in group if ticket.row is not None], waited):
                ticket = left.pop(outcome.id)
                if isinstance(outcome, ResultRow):
                    self._end(ticket, outcome)
                else:
                    self._write_later(ticket, outcome)
        except Stopped:
            with self._changed:
                self._stopped = True
                self._changed.notify_all()
        except BaseException as raised:
            error = raised
        for ticket in left.values():
            self._end(ticket, error)

    # Writing ---------------------------------------------------------------------------------------------------------

    def _write_later(self, ticket: _Ticket, painted: PaintedRow) -> None:
        size, ticket.row = ticket.bytes, None
        with self._changed:
            self._unwritten += size
        self._writers.submit(self._write_one, ticket, painted, size)

    def _write_one(self, ticket: _Ticket, painted: PaintedRow, size: int) -> None:
        with self._in_hand(self._writing, painted.id):
            try:
                row: Row | ResultRow | BaseException = self._write(painted)
            except BaseException as error:
                row = error
        if isinstance(row, ResultRow | BaseException):
            self._end(ticket, row)
        with self._changed:
            self._unwritten -= size
            if not isinstance(row, ResultRow | BaseException):
                ticket.row = row
                self._waiting.append(ticket)
            self._changed.notify_all()
        self._computer.submit(self._compute_all)
