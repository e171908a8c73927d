"""`HyperMobileNet`: MobileNets over alpha and resolution, as KerasTuner takes them."""

from __future__ import annotations

import contextlib
import functools
import math
import os
from collections.abc import Sequence
from typing import Any

import keras
import keras_tuner
import numpy as np
import tensorflow as tf
from keras_tuner.errors import FatalValueError

from keras_mobilenets.architecture.arguments import (
    VARIANTS,
    check_integer,
    check_known,
)
from keras_mobilenets.data import Splits, load_data
from keras_mobilenets.errors import TrainingDiverged
from keras_mobilenets.models import build
from keras_mobilenets.recipe import FIELDS, Recipe, get_recipe
from keras_mobilenets.training.averaging import averaged_weights
from keras_mobilenets.training.compiling import compile
from keras_mobilenets.training.settings import AUTHORS, DATA_OPTIONS, QUICK_START
from keras_mobilenets.tuning.space import RANGES, Space

NETWORK = (*dict.fromkeys(sum(VARIANTS.values(), ())), "batch_norm_epsilon")
SPACE = ("names", "alphas", "resolutions", "rhos")


class HyperMobileNet(keras_tuner.HyperModel):
    """MobileNets on a source of images, for any KerasTuner tuner.

    The hyperparameters are `name`, `alpha`, `resolution`, and those of
    `learning_rate`, `weight_decay` and `dropout` that are given as ranges.
    `resolution` drives the network and the input pipeline; the data is the
    hypermodel's own, so that `tuner.search()` needs none. Validation is by the
    recipe's averaged weights, and so are the checkpoints that tuners write at the
    end of an epoch.

    Args:
        data: as `source` in `load_data`: "digits", a TFDS name, or a folder.
        names: "mobilenet_v1", "mobilenet_v2" or both; V2 by default.
        alphas, resolutions, rhos: what to choose from, as in `km.search`.
        recipe: a name in `km.recipes`, or a `Recipe`; by default `train`'s.
        weights: as in `build`: None, "imagenet", or a file.
        seed: of weights, order, augmentation and dropout, the same in every trial.
        data_dir: where TFDS keeps its prepared data.
        **settings: `learning_rate`, `weight_decay`, `dropout` as (low, high); fields
            of the recipe (`epochs=20`), variations of the network and data options,
            as in `train`.

    Raises:
        ValueError: an impossible argument.

    Example:
        tuner = keras_tuner.RandomSearch(
            km.HyperMobileNet("digits", alphas=(0.35, 0.5), resolutions=(32, 48)),
            objective="val_accuracy",
            max_trials=3,
        )
        tuner.search(epochs=5)
    """

    def __init__(
        self,
        data: str | os.PathLike[str] = "digits",
        *,
        names: str | Sequence[str] = ("mobilenet_v2",),
        alphas: Sequence[float] | None = None,
        resolutions: Sequence[int] | None = None,
        rhos: Sequence[float] | None = None,
        recipe: str | Recipe | None = None,
        weights: str | os.PathLike[str] | None = None,
        seed: int = 0,
        data_dir: str | os.PathLike[str] | None = None,
        **settings: Any,
    ):
        super().__init__()
        check_known(
            "HyperMobileNet()", settings, (*NETWORK, *FIELDS, *DATA_OPTIONS, *SPACE)
        )
        # Everything that makes an equal one, in another process too.
        self.arguments = {
            "data": data, "names": names, "alphas": alphas, "resolutions": resolutions,
            "rhos": rhos, "recipe": recipe, "weights": weights, "seed": seed,
            "data_dir": data_dir, **settings,
        }  # fmt: skip
        ranges = {
            field: settings.pop(field)
            for field in RANGES
            if isinstance(settings.get(field), Sequence)
        }
        chosen = {"alphas": alphas, "resolutions": resolutions, "rhos": rhos}
        given = {key: value for key, value in chosen.items() if value is not None}
        self._network = {k: v for k, v in settings.items() if k in NETWORK}
        variant = {k: v for k, v in self._network.items() if k != "batch_norm_epsilon"}
        self.space = Space(names=names, **given, **ranges, variant=variant)
        self._options = {k: v for k, v in settings.items() if k in DATA_OPTIONS}
        overrides = {k: v for k, v in settings.items() if k in FIELDS}
        quick = QUICK_START["recipe"] if data == "digits" else None
        self.recipes = {
            name: get_recipe(recipe or quick or AUTHORS[name], **overrides)
            for name in self.space.names
        }
        self._data, self._data_dir = data, data_dir
        self._weights = weights
        self._seed = check_integer("seed", seed, low=0)
        self._loaded: tuple[Any, Splits] | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return functools.partial(type(self), **self.arguments), ()

    def declare_hyperparameters(self, hp: keras_tuner.HyperParameters) -> None:
        self.space.declare(hp)

    @property
    def epochs(self) -> int:
        """Of the longest trial."""
        return max(recipe.epochs for recipe in self.recipes.values())

    def recipe(self, hp: keras_tuner.HyperParameters) -> Recipe:
        """The recipe of a trial, with the values that are searched."""
        values = self.space.declare(hp)
        searched = {field: values[field] for field in self.space.ranges}
        return self.recipes[values["name"]].replace(**searched)

    def load(self, recipe: Recipe, resolution: int, replicas: int = 1) -> Splits:
        """The data of a trial. The last is kept: `build` and `fit` both need it."""
        key = (recipe, resolution, replicas)
        if self._loaded is None or self._loaded[0] != key:
            splits = load_data(
                self._data,
                resolution=resolution,
                batch_size=recipe.batch_size * replicas,
                recipe=recipe,
                seed=self._seed,
                data_dir=self._data_dir,
                pad_evaluation=replicas > 1,  # no replica may be without images
                **self._options,
            )
            self._loaded = key, splits
        return self._loaded[1]

    def build(self, hp: keras_tuner.HyperParameters) -> keras.Model:
        """The network of a trial, compiled by the recipe."""
        values, recipe = self.space.declare(hp), self.recipe(hp)
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        splits = self.load(recipe, values["resolution"], replicas)
        keras.utils.set_random_seed(self._seed)
        model = build(
            values["name"],
            alpha=values["alpha"],
            resolution=values["resolution"],
            classes=len(splits.classes),
            weights=self._weights,
            dropout=recipe.dropout,
            kernel_stddev=recipe.kernel_stddev,
            **self._network,
        )
        return compile(model, recipe, steps_per_epoch=splits.steps_per_epoch)

    def fit(
        self,
        hp: keras_tuner.HyperParameters,
        model: keras.Model,
        *args: Any,
        callbacks: Sequence[keras.callbacks.Callback] = (),
        epochs: int | None = None,
        **kwargs: Any,
    ) -> keras.callbacks.History:
        """Train a trial's network on the data at its resolution.

        Takes what `tuner.search` was given: `epochs` (default: the recipe's),
        `callbacks`, `verbose`, and `initial_epoch` from Hyperband.
        """
        if args or kwargs.keys() & {"x", "y", "validation_data", "batch_size"}:
            raise FatalValueError(
                "search() takes no data here, as it depends on the resolution of each "
                "trial: give `data`, `splits` or `batch_size` to HyperMobileNet"
            )
        recipe = self.recipe(hp)
        splits = self.load(
            recipe,
            model.input_shape[1],
            model.distribute_strategy.num_replicas_in_sync,
        )
        own = [SetEpoch(splits), StopWithoutNumber(), AveragedBetweenEpochs()]
        if recipe.early_stopping_patience:
            own.append(
                keras.callbacks.EarlyStopping(
                    patience=recipe.early_stopping_patience, restore_best_weights=True
                )
            )
        return model.fit(
            splits.train,
            validation_data=splits.validation,
            epochs=recipe.epochs if epochs is None else epochs,
            callbacks=[*own, *callbacks],
            shuffle=False,  # the data shuffles itself
            **kwargs,
        )


class SetEpoch(keras.callbacks.Callback):
    """Tells the data which epoch it is in: its order depends on (seed, epoch)."""

    def __init__(self, splits: Splits):
        super().__init__()
        self._splits = splits

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._splits.set_epoch(epoch)


class AveragedBetweenEpochs(keras.callbacks.Callback):
    """From validation to the next epoch the model has its averaged weights.

    So that what tuners compare, and what they save, is what the recipe is worth.
    """

    def __init__(self) -> None:
        super().__init__()
        self._averaged = contextlib.ExitStack()

    def on_test_begin(self, logs: Any = None) -> None:
        self._averaged.enter_context(averaged_weights(self.model))

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._averaged.close()

    def on_train_end(self, logs: Any = None) -> None:
        self._averaged.close()


class StopWithoutNumber(keras.callbacks.Callback):
    """Ends a trial whose loss is no number, where it happens."""

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None):
        loss = float((logs or {})["loss"])
        if not math.isfinite(loss):
            rate = float(np.array(self.model.optimizer.learning_rate))
            raise TrainingDiverged(
                f"the loss became {loss} at step {batch + 1} of epoch "
                f"{self._epoch + 1} (learning rate {rate:g})"
            )
