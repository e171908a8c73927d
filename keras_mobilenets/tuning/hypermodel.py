"""`HyperMobileNet`: MobileNets over alpha and resolution, as KerasTuner takes them."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterable
from typing import Any

import keras
import keras_tuner
import tensorflow as tf
from keras_tuner.errors import FatalValueError

from keras_mobilenets.data import Splits, load_data
from keras_mobilenets.errors import TrainingDiverged, UsageError
from keras_mobilenets.models import build
from keras_mobilenets.settings import Settings, make_settings
from keras_mobilenets.training.averaging import averaged_weights
from keras_mobilenets.training.callbacks import learning_rate
from keras_mobilenets.training.compiling import compile
from keras_mobilenets.tuning.options import read_space
from keras_mobilenets.tuning.points import POINT


def load(
    settings: Settings,
    batch_size: int,
    *,
    index: str | os.PathLike[str] | None = None,
    pad_evaluation: bool = False,
) -> Splits:
    """The data of a trial.

    Raises:
        UsageError: its images may have several labels: a search compares accuracies.
    """
    splits = load_data(
        settings.data,
        resolution=settings.resolution,
        channels=settings.channels,
        batch_size=batch_size,
        recipe=settings.recipe,
        seed=settings.seed,
        data_dir=settings.data_dir,
        index=index,
        pad_evaluation=pad_evaluation,
        **settings.data_options,
    )
    if splits.multi_label:
        raise UsageError(
            f"data of a search must have one label for each image; got "
            f"{str(settings.data)!r}, whose images may have several: train each "
            "network, and compare the f1_score of their reports"
        )
    return splits


class HyperMobileNet(keras_tuner.HyperModel):
    """MobileNets on a source of images, for any KerasTuner tuner.

    The hyperparameters are `name`, `alpha`, `resolution`, and those of
    `learning_rate`, `weight_decay` and `dropout` that are given as ranges.
    `resolution` drives the network and the input pipeline; the data is the
    hypermodel's own, so that `tuner.search()` needs none. Validation is by the
    recipe's averaged weights, and so are the checkpoints that tuners write at the
    end of an epoch.

    Args:
        data: as `source` in `load_data`.
        **options: `names`, `alphas`, `resolutions`, `rhos`, ranges, and what decides
            a run, as in `search`; no budget.

    Raises:
        UsageError: an impossible argument.

    Example:
        tuner = keras_tuner.RandomSearch(
            km.HyperMobileNet("digits", alphas=(0.35, 0.5), resolutions=(32, 48)),
            objective="val_accuracy",
            max_trials=3,
        )
        tuner.search(epochs=5)
    """

    def __init__(self, data: Any = "digits", **options: Any):
        super().__init__()
        given = {"data": data, **options}
        self.space, self._arguments = read_space(given, "HyperMobileNet()")
        self._loaded: tuple[Any, Splits] | None = None

    def declare_hyperparameters(self, hp: keras_tuner.HyperParameters) -> None:
        """Declare all of them, without building a network."""
        self.space.declare(hp)

    def settings(self, hp: keras_tuner.HyperParameters) -> Settings:
        """The settings of a trial, as `train` takes them; its recipe among them."""
        values = self.space.declare(hp)
        searched = {name: values[name] for name in (*POINT, *self.space.ranges)}
        return make_settings({**self._arguments, **searched})

    def load(self, settings: Settings) -> Splits:
        """The data of a trial. The last is kept: `build` and `fit` both need it."""
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        if self._loaded is None or self._loaded[0] != (settings, replicas):
            splits = load(
                settings,
                settings.recipe.batch_size * replicas,
                pad_evaluation=replicas > 1,  # no replica may be without images
            )
            self._loaded = (settings, replicas), splits
        return self._loaded[1]

    def build(self, hp: keras_tuner.HyperParameters) -> keras.Model:
        """The network of a trial, compiled by the recipe."""
        settings = self.settings(hp)
        splits = self.load(settings)
        keras.utils.set_random_seed(settings.seed % 2**32)
        model = build(
            settings.name,
            classes=len(splits.classes),
            weights=settings.weights,
            dropout=settings.recipe.dropout,
            kernel_stddev=settings.recipe.kernel_stddev,
            **settings.network,
        )
        return compile(model, settings.recipe, steps_per_epoch=splits.steps_per_epoch)

    def fit(
        self,
        hp: keras_tuner.HyperParameters,
        model: keras.Model,
        *args: Any,
        callbacks: Iterable[keras.callbacks.Callback] = (),
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
        settings = self.settings(hp)
        recipe = settings.recipe
        with model.distribute_strategy.scope():
            splits = self.load(settings)
        own: list[keras.callbacks.Callback] = [EpochByEpoch(splits)]
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


class EpochByEpoch(keras.callbacks.Callback):
    """What Keras' `fit` does not do by itself, in each epoch.

    The data is told which epoch it is, for its order depends on (seed, epoch). A loss
    that is no number ends the trial. From validation to the next epoch the model has
    its averaged weights, so that what tuners compare, and what they save, is what the
    recipe is worth.
    """

    def __init__(self, splits: Splits):
        super().__init__()
        self._splits = splits
        self._averaged = contextlib.ExitStack()

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._averaged.close()
        self._splits.set_epoch(epoch)
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        loss = float((logs or {})["loss"])
        if not math.isfinite(loss):
            raise TrainingDiverged(
                f"the loss became {loss} at step {batch + 1} of epoch "
                f"{self._epoch + 1} (learning rate {learning_rate(self.model):g})"
            )

    def on_test_begin(self, logs: Any = None) -> None:
        self._averaged.enter_context(averaged_weights(self.model))

    def on_train_end(self, logs: Any = None) -> None:
        self._averaged.close()
