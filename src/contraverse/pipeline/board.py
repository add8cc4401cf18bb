"""Cells of a study shared out to workers: trials of an Optuna study, in a file or a database."""

import os
import socket
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contraverse.errors import UserError

if TYPE_CHECKING:
    import optuna

HEARTBEAT, GRACE = 30, 120
"""Seconds between two signs of life of a worker, and without one after which its cell goes to another."""
KEY, LINE, ERROR, WORKER = "cell", "line", "error", "worker"
"""User attributes of a trial."""


class Board:
    """Hands each cell to one worker, on however many machines.

    A cell is a trial that waits with its key; a worker takes it, which the storage lets only one do, and leaves the
    finished line with it. Two workers may offer the same cell at the same time: the trial with the lower number counts.
    A worker that dies stops giving signs of life, and its cell waits again. A worker that was only taken for dead
    leaves its line all the same; of two lines the first counts.

    Args:
        storage: a database URL (sqlite:///FILE, postgresql://...), or a file, which is Optuna's journal.
        name: of the study.

    Raises:
        UserError: Optuna is not installed, or the storage cannot be opened.
    """

    def __init__(self, storage: str, name: str) -> None:
        try:
            import optuna
        except ImportError as error:
            hint = "pip install 'contraverse[search]', or optuna itself"
            raise UserError("a study needs Optuna, which is not installed", hint=hint) from error
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        try:
            with warnings.catch_warnings():  # heartbeats are called experimental since 2021
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                opened = _open(storage)
            self.study: optuna.Study = optuna.create_study(
                storage=opened, study_name=name, direction="maximize", load_if_exists=True
            )
        except Exception as error:  # SQLAlchemy's, the driver's, the file system's: each storage has its own
            raise UserError(f"the storage cannot be opened: {error}", where=storage) from error
        self._unsigned: dict[int, float] = {}  # running trials without a worker's name, and when they were first seen

    def lines(self) -> list[dict[str, Any]]:
        """Finished cells, each once."""
        return [trial.user_attrs[LINE] for trial in self._by_key().values() if LINE in trial.user_attrs]

    def failures(self) -> dict[str, str]:
        """Errors of the cells that failed, by key."""
        return {key: trial.user_attrs[ERROR] for key, trial in self._by_key().items() if ERROR in trial.user_attrs}

    def offer(self, keys: Iterable[str]) -> None:
        """Offer cells that were never offered before."""
        known = self._by_key()
        for key in keys:
            if key not in known:
                self._put_up(key)

    def retry(self) -> None:
        """Offer failed cells again."""
        for key in self.failures():
            self._put_up(key)

    def release(self) -> None:
        """Offer cells again whose worker has died.

        A process of this host is known to be dead at once. One of another host is taken for dead where a database has
        had no sign of life for `GRACE` seconds (a journal has none), or where it died before it left its name.
        """
        import optuna

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            optuna.storages.fail_stale_trials(self.study)
        running = self._trials("RUNNING")
        now = time.monotonic()
        self._unsigned = {t.number: self._unsigned.get(t.number, now) for t in running if WORKER not in t.user_attrs}
        host = socket.gethostname()
        for trial in running:
            name, _, process = trial.user_attrs.get(WORKER, "").rpartition(":")
            is_dead = name == host and not _is_alive(int(process))
            if is_dead or now - self._unsigned.get(trial.number, now) > GRACE:
                try:
                    self.study.tell(trial.number, state=_state("FAIL"))
                except (ValueError, RuntimeError):
                    continue  # another worker was first
                if KEY in trial.user_attrs:
                    self._put_up(trial.user_attrs[KEY])

    def waiting(self) -> int:
        """Number of cells that a worker could take."""
        return len(self._trials("WAITING"))

    def running(self) -> int:
        """Number of cells that a worker has in hand."""
        return len(self._trials("RUNNING"))

    def work(self, run: Callable[[str], Mapping[str, Any]]) -> str | None:
        """Take one cell, do it, and leave its line; the key, or None where there was none to take.

        An error in ``run`` is kept with the cell, and the rest goes on; Ctrl-C puts the cell up again.

        Args:
            run: from a key to the finished line.
        """
        if self.waiting() == 0:  # Optuna would make up a trial of its own
            return None
        taken: dict[str, int] = {}  # at most one key, and the number of its trial
        outcome: dict[str, Any] = {}

        def objective(trial: "optuna.Trial") -> float:
            import optuna

            key = trial.user_attrs.get(KEY)
            if key is None or self._is_double(trial.number, key):
                raise optuna.TrialPruned
            taken[key] = trial.number
            trial.set_user_attr(WORKER, f"{socket.gethostname()}:{os.getpid()}")
            try:
                outcome[LINE] = dict(run(key))
            except Exception as error:
                outcome[ERROR] = f"{type(error).__name__}: {error}"
            except BaseException:
                self._put_up(key)
                raise
            for name, value in outcome.items():
                trial.set_user_attr(name, value)
            if ERROR in outcome:
                raise RuntimeError(outcome[ERROR])
            return 1.0

        try:
            self.study.optimize(objective, n_trials=1, catch=(RuntimeError,))
        except (RuntimeError, ValueError):  # of Optuna, that the trial is finished
            if not self._is_finished(taken):
                raise
        for key in taken:
            if LINE in outcome:
                self._keep(key, outcome[LINE])
        return next(iter(taken), None)

    def _is_finished(self, taken: Mapping[str, int]) -> bool:
        finished = {trial.number for trial in self._trials("COMPLETE", "FAIL", "PRUNED")}
        return bool(taken) and finished.issuperset(taken.values())

    def _keep(self, key: str, line: Mapping[str, Any]) -> None:
        """Leave the line with a trial of its own where another worker ended ours, taking this process for dead."""
        import optuna

        trial = self._by_key().get(key)
        if trial is None or LINE not in trial.user_attrs:
            finished = {KEY: key, LINE: dict(line)}
            self.study.add_trial(optuna.trial.create_trial(value=1.0, user_attrs=finished))

    def _put_up(self, key: str) -> None:
        self.study.enqueue_trial({}, user_attrs={KEY: key})

    def _trials(self, *states: str) -> Sequence[Any]:
        return self.study.get_trials(deepcopy=False, states=[_state(name) for name in states])

    def _by_key(self) -> dict[str, Any]:
        """The trial that counts of each cell: the first with a line, else the newest that was not pruned."""
        latest: dict[str, Any] = {}
        for trial in self._trials("COMPLETE", "RUNNING", "WAITING", "FAIL"):
            key = trial.user_attrs.get(KEY)
            if key is not None and LINE not in getattr(latest.get(key), "user_attrs", {}):
                latest[key] = trial
        return latest

    def _is_double(self, number: int, key: str) -> bool:
        """True where the cell is finished, or a trial with a lower number has it in hand."""
        others = [trial for trial in self._trials("COMPLETE", "RUNNING") if trial.user_attrs.get(KEY) == key]
        return any(LINE in trial.user_attrs or trial.number < number for trial in others)


def _state(name: str) -> "optuna.trial.TrialState":
    from optuna.trial import TrialState

    return TrialState[name]


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _open(storage: str) -> "optuna.storages.BaseStorage":
    from optuna.storages import JournalStorage, RDBStorage
    from optuna.storages.journal import JournalFileBackend

    if "://" not in storage:
        Path(storage).parent.mkdir(parents=True, exist_ok=True)
        return JournalStorage(JournalFileBackend(storage))
    if storage.startswith("sqlite:///"):
        Path(storage.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
    database = RDBStorage(
        storage,
        heartbeat_interval=HEARTBEAT,
        grace_period=GRACE,
        heartbeat_stale_trial_callback=_put_up_again,
        # A server may have closed a connection that nobody used while a cell was trained.
        engine_kwargs={"connect_args": {"timeout": 60}} if storage.startswith("sqlite") else {"pool_pre_ping": True},
    )
    if storage.startswith("sqlite"):
        _serialize(database.engine)
    return database


def _put_up_again(study: "optuna.Study", trial: "optuna.trial.FrozenTrial") -> None:
    """Put up a dead worker's cell, without the worker's name, which Optuna's own callback would copy."""
    if KEY in trial.user_attrs:
        study.enqueue_trial({}, user_attrs={KEY: trial.user_attrs[KEY]})


def _serialize(engine: Any) -> None:
    """Have each transaction lock the SQLite file from its beginning.

    Optuna reads a trial's state and then sets it. SQLite ignores ``FOR UPDATE``, and Python's driver begins a
    transaction with the first change: two workers could both read "waiting", and both take the trial.
    """
    from sqlalchemy import event

    def connect(connection: Any, _: Any) -> None:
        connection.isolation_level = None  # the driver begins no transaction by itself

    def begin(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    event.listen(engine, "connect", connect)
    event.listen(engine, "begin", begin)
    engine.dispose()  # connections that were opened before
