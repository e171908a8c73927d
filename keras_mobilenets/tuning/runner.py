"""Runs what an oracle proposes: trials, several at a time, each in a process."""

from __future__ import annotations

import dataclasses
import errno
import functools
import pathlib
import threading
import time
from collections.abc import Callable, Mapping
from concurrent import futures
from typing import Any, NamedTuple

from keras_tuner.engine.trial import Trial, TrialStatus

from keras_mobilenets.errors import SearchStopped, TrainingInterrupted
from keras_mobilenets.settings import Settings, make_settings
from keras_mobilenets.tuning.directory import INDEX
from keras_mobilenets.tuning.hyperband import FIRST
from keras_mobilenets.tuning.isolation import CallFailed, Server
from keras_mobilenets.tuning.options import SearchOptions
from keras_mobilenets.tuning.points import POINT
from keras_mobilenets.tuning.protocol import Client, record
from keras_mobilenets.tuning.space import Space
from keras_mobilenets.tuning.stored_oracle import TRIALS, StoredOracle
from keras_mobilenets.tuning.trial import Task, run_trial

IDLE = 0.3  # seconds until an oracle that waits for results is asked again

# Where one trial cannot write, no other one can either.
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


class Plan(NamedTuple):
    """All that a worker has to know of a search, beside what its oracle proposes."""

    path: pathlib.Path
    space: Space
    arguments: dict[str, Any]  # of every trial, as `train` takes them
    options: SearchOptions

    def for_workers(self) -> Plan:
        """What travels to other processes: functions of the user's own may not."""
        return self._replace(
            space=dataclasses.replace(self.space, latency=None, max_latency_ms=None),
            options=dataclasses.replace(self.options, prior=None),
        )

    def settings_of(self, values: Mapping[str, Any]) -> Settings:
        """The settings of the run that hyperparameters ask for."""
        searched = {name: values[name] for name in (*POINT, *self.space.ranges)}
        return make_settings({**self.arguments, **searched}, where="search()")


class Runner:
    """Runs trials on this machine.

    A trial that raises, crashes, hangs or takes too much memory is recorded as failed
    with its message, and the search goes on.

    Args:
        plan: of the search.
        oracle: in this process, or the chief's as its worker sees it.
        server: of processes; None runs trials in this one, for a debugger.
        on_result: called with every trial that has ended.
        run_trial: what carries one out.
    """

    def __init__(
        self,
        plan: Plan,
        oracle: StoredOracle | Client,
        server: Server | None,
        on_result: Callable[[Trial], None] = lambda trial: None,
        run_trial: Callable[[Task], dict[str, float]] = run_trial,
    ):
        self._plan, self._oracle, self._server = plan, oracle, server
        self._on_result, self._run_trial = on_result, run_trial
        self._lock = threading.Lock()  # KerasTuner's own is not given back by an error
        self._broken = False
        self._record: Callable[..., Any] = functools.partial(record, oracle)
        if isinstance(oracle, Client):
            self._record = oracle.update_trial
            if server is not None:
                oracle.on_lost = server.close

    def run(self, tuner_id: str = "tuner0") -> None:
        """Run trials until the oracle has no more."""
        slots = self._plan.options.workers
        if slots == 1:
            return self._work(tuner_id, 0)
        pool = futures.ThreadPoolExecutor(slots)
        try:
            # A worker with several trials at a time appends a number to its name.
            work = [pool.submit(self._work, f"{tuner_id}.{s}", s) for s in range(slots)]
            for slot in futures.as_completed(work):
                slot.result()
        except BaseException:
            self._broken = True
            if self._server is not None:  # or the threads would wait for their trials
                self._server.close()
            raise
        finally:
            pool.shutdown()

    def _work(self, tuner_id: str, slot: int) -> None:
        while True:
            trial = self._alone(self._oracle.create_trial, tuner_id)
            if trial.status == TrialStatus.STOPPED:
                return
            if trial.status == TrialStatus.IDLE:
                time.sleep(IDLE)
                continue
            try:
                metrics = self.run_trial(trial, slot)
                self._alone(self._record, trial.trial_id, metrics)
                trial.status = TrialStatus.COMPLETED
            except SearchStopped as stopped:
                raise getattr(self._oracle, "lost", None) or stopped from None
            except CallFailed as failure:
                _check_is_its_own(failure)
                trial.status, trial.message = TrialStatus.FAILED, str(failure)
            self._alone(self._oracle.end_trial, trial)
            self._on_result(trial)

    def _alone(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """One thread at a time, and none after one of them has failed."""
        with self._lock:
            if self._broken:
                raise SearchStopped("another trial has ended the search")
            try:
                return function(*arguments)
            except BaseException:
                self._broken = True
                raise

    def run_trial(self, trial: Trial, slot: int = 0) -> dict[str, float]:
        """Carry out one trial; its metrics."""
        plan, values = self._plan, trial.hyperparameters.values
        trials = plan.path / TRIALS
        task = Task(
            plan.settings_of(values),
            workdir=trials / values.get(FIRST, trial.trial_id),
            values=values,
            until=values.get("tuner/epochs"),
            data_index=plan.path / INDEX if (plan.path / INDEX).exists() else None,
            strategy=plan.options.strategy,
            objective=plan.options.objective,
            slot=slot,
            slots=plan.options.workers,
        )
        started = time.monotonic()
        if self._server is not None:
            metrics = self._server.call(
                self._run_trial,
                task,
                log=trials / f"{trial.trial_id}.log",
                time_limit=plan.options.time_limit,
                memory_limit=plan.options.memory_limit,
            )
        else:
            try:
                metrics = self._run_trial(task)
            except Exception as error:
                message = " ".join(f"{type(error).__name__}: {error}".split())
                raise CallFailed(message) from error
        return {**metrics, "seconds": time.monotonic() - started}


def _check_is_its_own(failure: CallFailed) -> None:
    """What went wrong is of this trial, and not what every other one would meet.

    Raises:
        SearchStopped: it is not.
    """
    cause = failure.__cause__
    if isinstance(cause, TrainingInterrupted) or (
        isinstance(cause, OSError) and cause.errno in FULL
    ):
        raise SearchStopped(
            f"a trial could not go on ({failure}); give the same command to resume"
        ) from failure
