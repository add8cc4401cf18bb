"""Cells of a study shared out to workers: trials of an Optuna study, in a file or a database."""

import os
import socket
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
    A worker that dies stops giving signs of life, and its cell waits again.

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

    def lines(self) -> list[dict[str, Any]]:
        """Finished cells."""
        return [trial.user_attrs[LINE] for trial in self._by_key().values() if LINE in trial.user_attrs]

    def failures(self) -> dict[str, str]:
        """Errors of the cells that failed, by key."""
        return {key: trial.user_attrs[ERROR] for key, trial in self._by_key().items() if ERROR in trial.user_attrs}

    def offer(self, keys: Iterable[str]) -> None:
        """Put cells up that nobody has offered before."""
        known = self._by_key()
        for key in keys:
            if key not in known:
                self.study.enqueue_trial({}, user_attrs={KEY: key})

    def retry(self) -> None:
        """Put cells up again that failed."""
        for key in self.failures():
            self.study.enqueue_trial({}, user_attrs={KEY: key})

    def release(self) -> None:
        """Put cells up again that a process of this host had in hand when it died.

        A database notices it by itself, by missing signs of life; a journal does not.
        """
        host = socket.gethostname()
        for trial in self._trials("RUNNING"):
            name, _, process = trial.user_attrs.get(WORKER, "").rpartition(":")
            if name == host and not _is_alive(int(process)):
                try:
                    self.study.tell(trial.number, state=_state("FAIL"))
                except (ValueError, RuntimeError):
                    continue  # another worker was first
                self.study.enqueue_trial({}, user_attrs={KEY: trial.user_attrs[KEY]})

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
        taken: list[str] = []

        def objective(trial: "optuna.Trial") -> float:
            import optuna

            key = trial.user_attrs.get(KEY)
            if key is None or self._is_double(trial.number, key):
                raise optuna.TrialPruned
            taken.append(key)
            trial.set_user_attr(WORKER, f"{socket.gethostname()}:{os.getpid()}")
            try:
                trial.set_user_attr(LINE, dict(run(key)))
            except Exception as error:
                trial.set_user_attr(ERROR, f"{type(error).__name__}: {error}")
                raise
            except BaseException:
                self.study.enqueue_trial({}, user_attrs={KEY: key})
                raise
            return 1.0

        self.study.optimize(objective, n_trials=1, catch=(Exception,))
        return taken[0] if taken else None

    def _trials(self, *states: str) -> Sequence[Any]:
        return self.study.get_trials(deepcopy=False, states=[_state(name) for name in states])

    def _by_key(self) -> dict[str, Any]:
        """The trial that counts of each cell: a finished one, else the newest that was not pruned."""
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
    from optuna.storages import JournalStorage, RDBStorage, RetryHeartbeatStaleTrialCallback
    from optuna.storages.journal import JournalFileBackend

    if "://" not in storage:
        Path(storage).parent.mkdir(parents=True, exist_ok=True)
        return JournalStorage(JournalFileBackend(storage))
    if storage.startswith("sqlite:///"):
        Path(storage.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
    return RDBStorage(
        storage,
        heartbeat_interval=HEARTBEAT,
        grace_period=GRACE,
        heartbeat_stale_trial_callback=RetryHeartbeatStaleTrialCallback(),
        engine_kwargs={"connect_args": {"timeout": 60}} if storage.startswith("sqlite") else None,
    )
