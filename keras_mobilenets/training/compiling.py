"""`compile`: a recipe on a Keras model, ready for `model.fit`."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from keras_mobilenets.architecture.arguments import check_integer
from keras_mobilenets.errors import UsageError
from keras_mobilenets.recipe import Recipe, get_recipe
from keras_mobilenets.training.averaging import average_model
from keras_mobilenets.training.batch_norm import (
    share_moving_statistics,
    use_fused,
    warn_if_short,
)
from keras_mobilenets.training.distribution import is_multi_worker, make_scale
from keras_mobilenets.training.losses import SmoothedCrossentropy, regularize
from keras_mobilenets.training.optimizer import RMSprop
from keras_mobilenets.training.schedule import ExponentialDecay

TOP_5_FROM = 100  # classes from which top-5 accuracy is worth a column


def make_schedule(
    recipe: Recipe, steps_per_epoch: int, learning_rate: float | None = None
) -> ExponentialDecay:
    """The recipe's learning rate as a function of the step.

    It begins at `learning_rate`, by default the recipe's; see `make_scale`.
    """
    return ExponentialDecay(
        recipe.learning_rate if learning_rate is None else learning_rate,
        decay_steps=max(1, int(steps_per_epoch * recipe.decay_epochs)),
        decay_rate=recipe.decay_rate,
        staircase=recipe.staircase,
        warmup_steps=int(steps_per_epoch * recipe.warmup_epochs),
    )


def make_optimizer(
    recipe: Recipe, learning_rate: ExponentialDecay
) -> keras.optimizers.Optimizer:
    """The recipe's optimizer."""
    if recipe.optimizer == "sgd":
        return keras.optimizers.SGD(learning_rate, momentum=recipe.momentum)
    return RMSprop(
        learning_rate,
        rho=recipe.rho,
        momentum=recipe.momentum,
        epsilon=recipe.epsilon,
        initial_accumulator=recipe.initial_accumulator,
    )


def _ends_in_logits(model: keras.Model) -> bool:
    if len(model.output_shape) != 2:
        raise UsageError(
            "model must end in one vector of classes; got outputs of shape "
            f"{model.output_shape}: build it with include_top=True"
        )
    activation = getattr(model.layers[-1], "activation", keras.activations.linear)
    if activation is keras.activations.softmax:
        return False
    if activation is keras.activations.linear:
        return True
    raise UsageError(
        "model must end in softmax or in logits for this recipe's cross entropy; "
        f"got {getattr(activation, '__name__', activation)!r}: build it with "
        'classifier_activation="softmax" or None'
    )


def _build_state(model: keras.Model) -> None:
    """Create optimizer slots, metrics and loss state before the first step.

    Otherwise Keras creates them inside the first traced step, and tf.function
    then traces the whole step a second time.
    """
    model.optimizer.build(model.trainable_variables)
    strategy = model.distribute_strategy

    def touch() -> None:
        y_true = tf.zeros([1], tf.int32)
        y_pred = tf.zeros([1, model.output_shape[-1]], model.outputs[0].dtype)
        model.compute_loss(None, y_true, y_pred)
        model.compute_metrics(None, y_true, y_pred)

    tf.function(lambda: strategy.run(touch)).get_concrete_function()


def _mend_fit(model: keras.Model) -> None:
    """Make `fit` and `evaluate` work where several processes train in step.

    Keras 3.15 fails there twice. Its symbolic build reduces a batch that lies on
    several replicas; all it would build exists by now, and it costs a pass over the
    data. And it reduces every log along axis 0, which a scalar has not.
    """
    if tf.distribute.has_strategy():
        model._maybe_symbolic_build = lambda **_: None
    if not is_multi_worker(model.distribute_strategy):
        return
    for name in ("train_step", "test_step"):
        step = getattr(model, name)

        def with_an_axis(data: Any, step: Any = step) -> dict[str, tf.Tensor]:
            return {key: tf.reshape(log, [1]) for key, log in step(data).items()}

        setattr(model, name, with_an_axis)


def compile(
    model: keras.Model,
    recipe: str | Recipe = "slim_v2",
    *,
    steps_per_epoch: int,
    **overrides: Any,
) -> keras.Model:
    """Set a recipe's optimizer, schedule, loss and constants on a model.

    The model is then trained with `model.fit` as usual, on batches of float
    images in [-1, 1] and whole-number labels [batch]. Any classification model
    of one output will do, not only ours. Under a `tf.distribute` strategy call it
    inside `strategy.scope()`.

    The recipe sets the training constants of the network too: batch-norm momentum
    and, where the model has a dropout layer, its rate (`build(dropout=0)` leaves
    the layer out). It does not touch weights: `kernel_stddev` acts in `train` and
    `build` only.

    Args:
        model: a Keras model ending in softmax or in logits.
        recipe: a name in `km.recipes`, or a `Recipe`.
        steps_per_epoch: training steps of an epoch; schedules count in epochs.
        **overrides: fields of the recipe, such as `learning_rate=1e-3`.

    Returns:
        The same model.

    Raises:
        ValueError: an unknown recipe or field, an impossible value, or a model
            that does not end in classes.

    Example:
        km.compile(model, "slim_v2", steps_per_epoch=len(train), ema_decay=None)
        model.fit(train, epochs=5)
    """
    recipe = get_recipe(recipe, **overrides)
    check_integer("steps_per_epoch", steps_per_epoch, low=1)
    from_logits = _ends_in_logits(model)
    scale = make_scale(recipe, model.distribute_strategy)
    several = scale.replicas > 1

    model.__dict__.pop("train_step", None)  # of an earlier compile
    use_fused(
        model,
        recipe.batch_norm_momentum,
        synchronized=several and recipe.synchronize_batch_norm,
    )
    if several and not recipe.synchronize_batch_norm:
        share_moving_statistics(model)
    warn_if_short(recipe.batch_norm_momentum, steps_per_epoch * recipe.epochs)
    regularize(model, recipe.weight_decay, recipe.weight_decay_scope)
    for layer in model._flatten_layers(include_self=False):
        if isinstance(layer, keras.layers.Dropout):
            layer.rate = recipe.dropout

    metrics = [keras.metrics.SparseCategoricalAccuracy(name="accuracy")]
    if model.output_shape[-1] >= TOP_5_FROM:
        metrics.append(keras.metrics.SparseTopKCategoricalAccuracy(5, name="top5"))
    schedule = make_schedule(recipe, steps_per_epoch, scale.learning_rate)
    model.compile(
        optimizer=make_optimizer(recipe, schedule),
        loss=SmoothedCrossentropy(
            recipe.label_smoothing, from_logits, dtype=model.outputs[0].dtype
        ),
        weighted_metrics=metrics,  # a padded batch's filling counts for nothing
        jit_compile=False,  # XLA slows depthwise convolutions down on CPU
    )
    _build_state(model)
    average_model(model, recipe.ema_decay)
    _mend_fit(model)
    return model
