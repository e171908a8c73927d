"""KerasTuner's oracles within a `Space`: grid, random, Bayesian, hyperband."""

from __future__ import annotations

from typing import Any

import keras_tuner

from keras_mobilenets.architecture.arguments import (
    check_choice,
    check_integer,
    check_number,
)
from keras_mobilenets.errors import UsageError
from keras_mobilenets.tuning.bayesian import BayesianOracle
from keras_mobilenets.tuning.hyperband import HyperbandOracle
from keras_mobilenets.tuning.options import ORACLES, check_prior
from keras_mobilenets.tuning.prior import published_prior
from keras_mobilenets.tuning.space import Space
from keras_mobilenets.tuning.space_oracle import Prior, SpaceOracle, response

MAX_SEED = 2**32 - 1  # of numpy, for the Gaussian process


class GridOracle(SpaceOracle, keras_tuner.Oracle):
    """Every point in the order of the space."""

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        return response(next(self.untried(), None))


class RandomOracle(SpaceOracle, keras_tuner.oracles.RandomSearchOracle):
    """Points in random order."""

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        return response(self.random_values())


KINDS = (GridOracle, RandomOracle, BayesianOracle, HyperbandOracle)


def make_oracle(
    kind: str,
    space: Space,
    *,
    objective: str | keras_tuner.Objective = "val_accuracy",
    max_trials: int | None = None,
    seed: int | None = None,
    max_epochs: int | None = None,
    factor: int = 3,
    hyperband_iterations: int | None = None,
    num_initial_points: int = 2,
    beta: float = 1.0,
    prior: str | Prior | None = None,
) -> keras_tuner.Oracle:
    """An oracle of KerasTuner that proposes points of `space`, and no others.

    Its hyperparameters are "name", "alpha", "resolution" and the ranges of the
    space; hyperband adds KerasTuner's "tuner/epochs" and so on.

    Args:
        kind: "grid", "random", "bayesian" or "hyperband".
        objective: what to optimise, such as "val_accuracy" or "val_loss", or a
            `keras_tuner.Objective`. One; see `SearchResult.pareto` for several.
        max_trials: at most so many trials; by default all points are tried. Must
            be given where a range makes them infinitely many (a grid takes ten
            values of it).
        seed: 0 to 2**32 - 1; by default another one each time.
        max_epochs: of hyperband's highest rung, which needs it; others ignore it.
        factor: by which hyperband's rungs differ.
        hyperband_iterations: by default until the points or the trials run out.
        num_initial_points: random trials before the Gaussian process decides.
        beta: how many of its standard deviations count as promise, 0 or more; 1, not
            KerasTuner's 2.6, is [our choice] from the offline benchmark.
        prior: what accuracy to expect: a function of name, alpha and resolution, or
            "published" for what ImageNet's suggests (`published_prior`). The grid
            starts with the best, random draws favour it, and the Gaussian process
            explains the rest.

    Raises:
        ValueError: an argument that is not as above.

    >>> oracle = make_oracle("grid", Space(alphas=(0.35, 0.5), max_macs=50e6))
    """
    oracle = dict(zip(ORACLES, KINDS, strict=True))[
        check_choice("oracle", kind, ORACLES)
    ]
    single = isinstance(objective, (str, keras_tuner.Objective))
    if not single or hasattr(objective, "objectives"):
        raise UsageError(
            'objective must be one, such as "val_accuracy", or a '
            f"keras_tuner.Objective; got {objective!r} (KerasTuner would add several "
            "up; SearchResult.pareto weighs accuracy against cost)"
        )
    if seed is not None:
        seed = check_integer("seed", seed, low=0, high=MAX_SEED)
    if max_trials is not None:
        max_trials = check_integer("max_trials", max_trials, low=1)
    elif space.ranges and kind != "grid":
        raise UsageError(
            f"max_trials must be given where {' and '.join(space.ranges)} may be any "
            "number in a range; got None"
        )
    check_prior("prior", prior)
    settings: dict[str, Any] = {}
    if kind == "bayesian":
        settings = {
            "num_initial_points": check_integer(
                "num_initial_points", num_initial_points, low=1
            ),
            "beta": check_number("beta", beta, low=0),
        }
    if kind == "hyperband":
        settings = {
            "max_epochs": check_integer(
                "max_epochs", max_epochs, low=1, fix="hyperband needs it"
            ),
            "factor": check_integer("factor", factor, low=2),
            "hyperband_iterations": hyperband_iterations
            and check_integer("hyperband_iterations", hyperband_iterations, low=1),
        }
    return oracle(
        space,
        objective=objective,
        max_trials=max_trials,
        seed=seed,
        prior=published_prior if prior == "published" else prior,
        **settings,
    )
