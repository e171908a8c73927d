"""KerasTuner's protocol of chief and workers, with what it lacks to lose no trial.

The protocol is KerasTuner's: gRPC, and the environment variables
KERASTUNER_TUNER_ID ("chief", or any other name for a worker), KERASTUNER_ORACLE_IP
and KERASTUNER_ORACLE_PORT. Ours, within it:

- workers ask for the state of their trial while it runs; the trial of one that is
  silent for too long is handed out again, and of two results the first counts;
- no worker is sent away while a trial of another one may still come back;
- numbers keep their decimals, which the protocol carries as float32;
- the message of a failed trial travels too;
- workers end by themselves where the chief is gone.

Messages are not encrypted and nobody is asked for a password: keep the chief on
loopback or on a network that you trust.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import grpc
import keras_tuner
import numpy as np
from keras_tuner.engine.trial import Trial, TrialStatus

from keras_mobilenets.errors import SearchStopped
from keras_mobilenets.tuning.engine import OracleClient, OracleServicer, messages
from keras_mobilenets.tuning.stored_oracle import StoredOracle

HEARTBEAT = 5.0  # seconds between two signs of life of a running trial
STALE = 30.0  # seconds of silence after which its worker counts as dead
FIRST_ANSWER = 600.0  # seconds a worker waits for a chief that has never answered
ANSWER = 60.0  # seconds it waits for one that has
TUNER = "tuner-id"  # gRPC metadata: who asks for the state of a trial
MESSAGE = "message-bin"  # gRPC metadata: why a trial failed
LONGEST_MESSAGE = 4000  # bytes; gRPC allows 8 KiB in all
MAXIMIZED = ("accuracy", "top5")


def record(
    oracle: keras_tuner.Oracle, trial_id: str, metrics: Mapping[str, float]
) -> None:
    """Report the metrics of a trial to an oracle in this process.

    Which way each is better is said here: KerasTuner would make a Keras metric to
    find out, and so start TensorFlow and take a GPU.
    """
    known = oracle.get_trial(trial_id).metrics
    for name in metrics:
        if not known.exists(name) and name != oracle.objective.name:
            best = "max" if name.endswith(MAXIMIZED) else "min"
            known.register(name, best)
    oracle.update_trial(trial_id, dict(metrics))


class Chief(OracleServicer):
    """Answers workers, and hands out again what dead ones had."""

    def __init__(self, oracle: StoredOracle, on_result: Callable[[Trial], None]):
        super().__init__(oracle)
        self.failure: Exception | None = (
            None  # of ours, to which workers have no answer
        )
        self._on_result = on_result
        self._lock = threading.Lock()
        self._heard: dict[str, float] = {}  # tuner id: when; those sent away are out

    @contextlib.contextmanager
    def _exclusive(self) -> Iterator[None]:
        with self._lock:
            try:
                yield
            except Exception as error:
                self.failure = error
                raise

    def CreateTrial(self, request: Any, context: Any) -> Any:
        with self._exclusive():
            self._hear(request.tuner_id)
            trial = self.oracle.create_trial(request.tuner_id)
            if trial.status == TrialStatus.STOPPED:
                if self._open_trials():  # whose workers may die yet
                    trial.status = TrialStatus.IDLE
                else:
                    self.stop_triggered = True
                    del self._heard[request.tuner_id]
            return messages().CreateTrialResponse(trial=trial.to_proto())

    def GetTrial(self, request: Any, context: Any) -> Any:
        """A sign of life, if a worker of ours asks."""
        with self._exclusive():
            tuner_id = dict(context.invocation_metadata()).get(TUNER)
            if tuner_id is not None:
                self._hear(tuner_id)
                self._take_back(tuner_id, request.trial_id)
            return super().GetTrial(request, context)

    def UpdateTrial(self, request: Any, context: Any) -> Any:
        with self._exclusive():
            if request.trial_id not in self.oracle.end_order:
                metrics = {name: _decimal(v) for name, v in request.metrics.items()}
                record(self.oracle, request.trial_id, metrics)
            trial = self.oracle.get_trial(request.trial_id)
            return messages().UpdateTrialResponse(trial=trial.to_proto())

    def EndTrial(self, request: Any, context: Any) -> Any:
        with self._exclusive():
            trial = self.oracle.get_trial(request.trial.trial_id)
            if trial.trial_id not in self.oracle.end_order:
                # Status and message are news; the settings are as they were given.
                trial.status = TrialStatus.from_proto(request.trial.status)
                message = dict(context.invocation_metadata()).get(MESSAGE)
                trial.message = message and message.decode(errors="replace")
                if trial.trial_id in self.oracle.interrupted:
                    self.oracle.interrupted.remove(trial.trial_id)
                self.oracle.end_trial(trial)
                self._on_result(trial)
            return messages().EndTrialResponse()

    def _hear(self, tuner_id: str) -> None:
        self._heard[tuner_id] = time.monotonic()

    def _open_trials(self) -> bool:
        return bool(self.oracle.ongoing_trials or self.oracle.interrupted)

    def _take_back(self, tuner_id: str, trial_id: str) -> None:
        """A trial that was to be handed out again is running after all."""
        if trial_id in self.oracle.interrupted:
            self.oracle.interrupted.remove(trial_id)
            self.oracle.ongoing_trials[tuner_id] = self.oracle.get_trial(trial_id)

    def drop_stale_workers(self, gone: Iterable[str] = ()) -> None:
        """Hand out again the trials of workers that are gone, or silent for long."""
        with self._lock:
            now = time.monotonic()
            for tuner_id, heard in list(self._heard.items()):
                # A worker with several trials at a time appends a number to its name.
                if now - heard < STALE and tuner_id.split(".")[0] not in gone:
                    continue
                del self._heard[tuner_id]
                self.oracle.tuner_ids.discard(tuner_id)
                trial = self.oracle.ongoing_trials.pop(tuner_id, None)
                if trial is not None:
                    self.oracle.interrupted.append(trial.trial_id)
                    self.oracle.save()

    @property
    def finished(self) -> bool:
        with self._lock:
            return self.stop_triggered and not self._heard and not self._open_trials()

    @property
    def has_no_workers(self) -> bool:
        """There is something to do, and nobody there."""
        return not self._heard and not self.finished


class Client(OracleClient):
    """The chief's oracle, as a worker sees it."""

    def __init__(self, oracle: keras_tuner.Oracle):
        super().__init__(oracle)
        self.on_lost: Callable[[], None] = lambda: None
        self.lost: SearchStopped | None = None  # why the chief counts as gone
        self._answered = False
        self._running: dict[str, str] = {}  # trial id: tuner id
        threading.Thread(target=self._beat, daemon=True).start()

    def create_trial(self, tuner_id: str) -> Trial:
        request = messages().CreateTrialRequest(tuner_id=tuner_id)
        trial = Trial.from_proto(self._ask("CreateTrial", request).trial)
        for name, value in trial.hyperparameters.values.items():
            if isinstance(value, float):
                trial.hyperparameters.values[name] = _decimal(value)
        if trial.status == TrialStatus.RUNNING:
            self._running[trial.trial_id] = tuner_id
        return trial

    def update_trial(
        self, trial_id: str, metrics: Mapping[str, float], step: int = 0
    ) -> Trial:
        request = messages().UpdateTrialRequest(
            trial_id=trial_id, metrics=metrics, step=step
        )
        return Trial.from_proto(self._ask("UpdateTrial", request).trial)

    def end_trial(self, trial: Trial) -> None:
        self._running.pop(trial.trial_id, None)
        request = messages().EndTrialRequest(trial=trial.to_proto())
        message = (trial.message or "").encode()[:LONGEST_MESSAGE]
        self._ask("EndTrial", request, *([(MESSAGE, message)] if message else []))

    def _ask(self, method: str, request: Any, *metadata: tuple[str, Any]) -> Any:
        try:
            response = getattr(self.stub, method)(
                request,
                wait_for_ready=True,
                timeout=ANSWER if self._answered else FIRST_ANSWER,
                metadata=metadata,
            )
        except grpc.RpcError as error:
            raise SearchStopped(
                f"the chief of the search does not answer ({error.code().name}: "
                f"{error.details()})"
            ) from error
        self._answered = True
        return response

    def _beat(self) -> None:
        while True:
            time.sleep(HEARTBEAT)
            for trial_id, tuner_id in list(self._running.items()):
                request = messages().GetTrialRequest(trial_id=trial_id)
                try:
                    self._ask("GetTrial", request, (TUNER, tuner_id))
                except SearchStopped as error:
                    self.lost = error
                    return self.on_lost()


def _decimal(value: float) -> float:
    """The shortest decimal that float32 rounds to `value`: 0.35, not 0.34999999."""
    return float(str(np.float32(value)))
