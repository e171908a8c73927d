"""A search that trains nothing: the accuracy is what one expects of the network."""

import keras_tuner

from keras_mobilenets.tuning.oracles import make_oracle
from keras_mobilenets.tuning.points import POINT, key_of
from keras_mobilenets.tuning.prior import published_prior
from keras_mobilenets.tuning.space import Space

KINDS = ("grid", "random", "bayesian", "hyperband")
V2_ALPHAS = (0.35, 0.5, 0.75, 1.0, 1.3, 1.4)

# Budgets that leave 9 of 6 x 5 points.
SEVENTY_PERCENT = (
    Space(alphas=V2_ALPHAS, max_latency_ms=18),
    Space(alphas=V2_ALPHAS, max_macs=56e6),
    Space(alphas=V2_ALPHAS, max_params=1e9, max_memory=1.2e6),
    Space(alphas=V2_ALPHAS, max_macs=60e6, max_params=3e6),
)


def oracle_in(folder, kind, space, *, seed=0, max_epochs=4, **settings):
    settings.setdefault("factor", 2)
    oracle = make_oracle(kind, space, seed=seed, max_epochs=max_epochs, **settings)
    oracle.folder = folder / "search"
    return oracle


def point_of(trial):
    return key_of(trial.hyperparameters.values)


def accuracy(trial):
    epochs = trial.hyperparameters.values.get("tuner/epochs", 9)
    return published_prior(*point_of(trial)) * (1 - 0.5**epochs)


def finish(oracle, trial, fails=()):
    """End a trial as a tuner would; at the points in `fails` as a failure."""
    if point_of(trial) in fails:
        trial.status, trial.message = "FAILED", "out of memory"
    else:
        value = accuracy(trial)
        if oracle.objective.direction == "min":
            value = 1 - value
        oracle.update_trial(trial.trial_id, {oracle.objective.name: value})
        trial.status = "COMPLETED"
    oracle.end_trial(trial)


def search(oracle, fails=(), ran=None):
    """Run all trials, one after another; `ran` is told the id of each."""
    while (trial := oracle.create_trial("tuner0")).status != "STOPPED":
        assert trial.status == "RUNNING"
        if ran is not None:
            ran.append(trial.trial_id)
        finish(oracle, trial, fails)
    return list(oracle.trials.values())


def table(oracle):
    return {
        trial.trial_id: (trial.hyperparameters.values, trial.status, trial.score)
        for trial in oracle.trials.values()
    }


class Recorder(keras_tuner.HyperModel):
    """Declares the space again, and more; remembers every network it was to build."""

    def __init__(self, space):
        super().__init__()
        self.space = space
        self.built = []

    def build(self, hp):
        values = self.space.declare(hp)
        optimizer = hp.Choice("optimizer", ["rmsprop", "sgd"])
        with hp.conditional_scope("optimizer", ["sgd"]):
            hp.Boolean("nesterov")
        self.built.append(tuple(values[field] for field in POINT))
        return optimizer
