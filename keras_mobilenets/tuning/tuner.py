"""A KerasTuner tuner whose trials run in processes of their own, several at a time."""

from __future__ import annotations

import contextlib
import functools
import pathlib
import time
from collections.abc import Callable
from concurrent import futures
from typing import Any

import keras_tuner
from keras_tuner.errors import FatalError
from keras_tuner.src.distribute import utils as roles
from keras_tuner.src.engine.trial import Trial, TrialStatus

from keras_mobilenets.errors import SearchStopped
from keras_mobilenets.tuning.cluster import serve
from keras_mobilenets.tuning.hypermodel import HyperMobileNet
from keras_mobilenets.tuning.isolation import CallFailed, Server
from keras_mobilenets.tuning.protocol import Client, record
from keras_mobilenets.tuning.trial import STATE, Order, Strategy, run, run_alone

IDLE = 0.3  # seconds until an oracle that waits for results is asked again


class Tuner(keras_tuner.Tuner):
    """Runs the trials of any KerasTuner oracle, each isolated from the rest.

    A trial that raises, crashes, hangs or takes too much memory is recorded as
    failed with its message, and the search goes on. This process builds no network
    and leaves GPUs alone. Roles in KerasTuner's cluster are taken from the
    environment, as every tuner does.

    Args:
        oracle, hypermodel, directory, project_name, overwrite: as in
            `keras_tuner.Tuner`; the hypermodel is a `HyperMobileNet`.
        workers: trials at a time on this machine.
        time_limit: seconds of one trial.
        memory_limit: bytes of resident memory of one trial.
        isolate: False runs trials in this process, for a debugger; then there are
            no limits, and one at a time.
        strategy: "none", "mirrored", or a function that makes a `tf.distribute`
            strategy; called in every trial.
        on_result: called with every trial that has ended.
    """

    def __init__(
        self,
        oracle: keras_tuner.Oracle,
        hypermodel: HyperMobileNet,
        *,
        workers: int = 1,
        time_limit: float | None = None,
        memory_limit: float | None = None,
        isolate: bool = True,
        strategy: Strategy = "none",
        on_result: Callable[[Trial], None] = lambda trial: None,
        **kwargs: Any,
    ):
        self.workers = workers
        self.limits = {"time_limit": time_limit, "memory_limit": memory_limit}
        self.isolate = isolate
        self.strategy = strategy
        self.on_result = on_result
        self.server: Server | None = None
        oracle.max_consecutive_failed_trials = float("inf")
        oracle.verbose = 0
        with contextlib.redirect_stdout(None):  # it would say that it reloads
            super().__init__(oracle, hypermodel, **kwargs)
        self._record = functools.partial(record, oracle)
        if self._is_worker():
            self.oracle = Client(oracle)
            self._record = self.oracle.update_trial

    def _populate_initial_space(self) -> None:
        # KerasTuner would build a network here, and with it take a GPU.
        space = self.oracle.get_space()
        self.hypermodel.declare_hyperparameters(space)
        self.oracle.update_space(space)

    def search(
        self, *, epochs: int | None = None, server: Server | None = None
    ) -> None:
        """Run trials until the oracle has no more.

        Args:
            epochs: of a trial, where its oracle does not say.
            server: one that has been started, and is the caller's to close.
        """
        if not self._is_worker():
            self.save()  # from here on a killed search is found again
        if roles.is_chief_oracle():
            return serve(self.oracle, self.on_result)
        self.server = server
        if self.isolate and server is None:
            with Server() as self.server:
                return self._work_all(epochs)
        return self._work_all(epochs)

    def _work_all(self, epochs: int | None) -> None:
        if self._is_worker():
            self.oracle.on_lost = self.server.close
        if self.workers == 1:
            return self._work(0, epochs)
        pool = futures.ThreadPoolExecutor(self.workers)
        try:
            slots = [pool.submit(self._work, s, epochs) for s in range(self.workers)]
            for slot in futures.as_completed(slots):
                slot.result()
        except BaseException:
            self.server.close()  # or the threads would wait for their trials
            raise
        finally:
            pool.shutdown()

    def _work(self, slot: int, epochs: int | None) -> None:
        tuner_id = self.tuner_id if self.workers == 1 else f"{self.tuner_id}.{slot}"
        while True:
            trial = self.oracle.create_trial(tuner_id)
            if trial.status == TrialStatus.STOPPED:
                return
            if trial.status == TrialStatus.IDLE:
                time.sleep(IDLE)
                continue
            try:
                metrics = self.run_trial(trial, epochs=epochs, slot=slot)
                self._record(trial.trial_id, metrics)
                trial.status = TrialStatus.COMPLETED
            except SearchStopped as stopped:
                raise getattr(self.oracle, "lost", None) or stopped from None
            except CallFailed as failure:
                if isinstance(failure.__cause__, FatalError):
                    raise failure.__cause__ from failure
                trial.status, trial.message = TrialStatus.FAILED, str(failure)
            self.on_trial_end(trial)

    def on_trial_end(self, trial: Trial) -> None:
        self.oracle.end_trial(trial)
        self.on_result(trial)

    def run_trial(
        self, trial: Trial, *, epochs: int | None = None, slot: int = 0
    ) -> dict[str, float]:
        """Train one trial in a process of its own; returns its metrics."""
        values = trial.hyperparameters.values
        rung, past = "tuner/epochs" in values, values.get("tuner/trial_id")
        order = Order(
            hyperparameters=trial.hyperparameters,
            weights=pathlib.Path(self._get_checkpoint_fname(trial.trial_id)),
            state=self._file(trial.trial_id, STATE) if rung else None,
            past=self._file(past, STATE) if past else None,
            tensorboard=pathlib.Path(self.project_dir, "tensorboard", trial.trial_id),
            epochs=values.get("tuner/epochs", epochs),
            initial_epoch=values.get("tuner/initial_epoch", 0),
            strategy=self.strategy,
            slot=slot,
            slots=self.workers,
        )
        started = time.monotonic()
        if self.isolate:
            metrics = self.server.call(
                run_alone,
                self.hypermodel,
                order,
                log=self._file(trial.trial_id, "log.txt"),
                **self.limits,
            )
        else:
            try:
                metrics = run(self.hypermodel, order)
            except FatalError:
                raise
            except Exception as error:
                message = " ".join(f"{type(error).__name__}: {error}".split())
                raise CallFailed(message) from error
        return {**metrics, "seconds": time.monotonic() - started}

    def _file(self, trial_id: str, name: str) -> pathlib.Path:
        return pathlib.Path(self.get_trial_dir(trial_id), name)
