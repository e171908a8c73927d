"""`compile`: a recipe on a Keras model, ready for `model.fit`."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import keras

from keras_mobilenets.architecture.arguments import check_flag, check_integer, shown
from keras_mobilenets.errors import UsageError
from keras_mobilenets.recipe import Recipe, get_recipe
from keras_mobilenets.training.averaging import OfRecipe
from keras_mobilenets.training.batch_norm import batch_norms, warn_if_short
from keras_mobilenets.training.freezing import Resting, find_classifier, frozen
from keras_mobilenets.training.losses import (
    SmoothedCrossentropy,
    TopFive,
    other_loss,
)
from keras_mobilenets.training.optimizer import SGD, RMSprop
from keras_mobilenets.training.outputs import (
    classifier_dropouts,
    count_classes,
    ends_in_logits,
)
from keras_mobilenets.training.scale import make_scale
from keras_mobilenets.training.schedule import ExponentialDecay
from keras_mobilenets.training.step import bind, unbind

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
    recipe: Recipe, learning_rate: ExponentialDecay, steps_per_epoch: int
) -> keras.optimizers.Optimizer:
    """The recipe's optimizer."""
    fields = {field: getattr(recipe, field) for field in OfRecipe.FIELDS}
    fields["head_steps"] = recipe.head_epochs * steps_per_epoch
    if recipe.optimizer == "sgd":
        return SGD(learning_rate, momentum=recipe.momentum, recipe=fields)
    return RMSprop(
        learning_rate,
        recipe=fields,
        rho=recipe.rmsprop_decay,
        momentum=recipe.momentum,
        epsilon=recipe.epsilon,
        initial_accumulator=recipe.initial_accumulator,
    )


def compile(
    model: keras.Model,
    recipe: str | Recipe = "slim_v2",
    *,
    steps_per_epoch: int,
    from_logits: bool | None = None,
    loss: Any = None,
    metrics: Sequence[Any] | None = None,
    **overrides: Any,
) -> keras.Model:
    """Set a recipe's optimizer, schedule, loss and constants on a model.

    The model is then trained with `model.fit` as usual, on batches of float
    images in [-1, 1] and whole-number labels [batch]. Any classification model
    of one output will do, not only ours. Under a `tf.distribute` strategy call it
    inside `strategy.scope()`.

    The recipe sets the training constants of the network too: batch-norm momentum
    and the rate of the dropout before the classifier, of no other (a layer made with
    rate 0 stays off, and `build(dropout=0)` leaves it out). Its weight decay takes the
    place of the layers' own regularizers. It does not touch weights: `kernel_stddev`
    acts in `train` and `build` only. `model.compile(...)` takes all of it back.

    What the recipe freezes, and in its first `head_epochs` the whole body (all but the
    last layer with weights), is not trained, whatever `fit` is called with: the steps
    of the optimizer count. The layers' own `trainable` stays as it is, and layers that
    are not trainable stay frozen. `batch_norm="recalibrate"` is as "train" here; call
    `km.recalibrate` after `fit`.

    Args:
        model: a Keras model ending in softmax or in logits.
        recipe: a name in `km.recipes`, or a `Recipe`.
        steps_per_epoch: training steps of an epoch; schedules count in epochs.
        from_logits: whether the model ends without softmax; None looks at its layers,
            through nested models.
        loss: another loss than the recipe's cross entropy: a Keras loss or its name,
            such as "binary_crossentropy" for labels [batch, classes] of 0 and 1, or a
            function (labels, scores). The model may then end in one output, and in
            what that loss takes. One that Keras has a name for smooths labels as the
            recipe says, if it can; else give label_smoothing=0 where the recipe does.
        metrics: Keras metrics or their names; by default accuracy, and from 100 classes
            on top-5 accuracy, or none with another loss.
        **overrides: fields of the recipe, such as `learning_rate=1e-3`.

    Returns:
        The same model.

    Raises:
        UsageError: an unknown recipe or field, an impossible value, a layer to freeze
            that the model has not, a model that does not end in at least two
            classes, or of which it cannot be told whether it ends in logits, or a loss
            that does not take what the model ends in.

    Example:
        km.compile(model, "slim_v2", steps_per_epoch=len(train), ema_decay=None)
        model.fit(train, epochs=5)
    """
    if not isinstance(model, keras.Model):
        raise UsageError(f"model must be a keras.Model; got {model!r}")
    recipe = get_recipe(recipe, **overrides)
    steps_per_epoch = check_integer("steps_per_epoch", steps_per_epoch, low=1)
    if from_logits is not None:
        check_flag("from_logits", from_logits)
    if metrics is not None and not isinstance(metrics, (list, tuple)):
        raise UsageError(f"metrics must be a list of metrics; got {shown(metrics)}")
    for metric in metrics or []:
        if not isinstance(metric, str) and not callable(metric):
            raise UsageError(
                f"metrics must hold Keras metrics, or their names; got {shown(metric)}"
            )
    if loss is None:
        classes = count_classes(model)
        if from_logits is None:
            from_logits = ends_in_logits(model)
        loss = SmoothedCrossentropy(
            recipe.label_smoothing,
            from_logits,
            # Not in half precision, which cannot hold the number of a class.
            dtype=keras.backend.result_type(model.outputs[0].dtype, "float32"),
        )
        if metrics is None:
            metrics = [keras.metrics.SparseCategoricalAccuracy(name="accuracy")]
            metrics += [TopFive()] if classes >= TOP_5_FROM else []
    else:
        count_classes(model, least=1)
        loss = other_loss(loss, model, from_logits, recipe.label_smoothing)
    with Resting(frozen(model, "body" if recipe.head_epochs else recipe.freeze)):
        if not model.trainable_weights:
            raise UsageError(
                f"model has nothing to train: all layers of {model.name!r} are frozen; "
                "set layer.trainable = True for some"
            )
    frozen(model, recipe.freeze)  # which it must have
    if recipe.body_learning_rate != 1:
        find_classifier(model)
    if recipe.batch_norm == "train" and recipe.freeze != "body":
        warn_if_short(recipe.batch_norm_momentum, steps_per_epoch * recipe.epochs)
    scale = make_scale(recipe, model.distribute_strategy)
    schedule = make_schedule(recipe, steps_per_epoch, scale.learning_rate)

    unbind(model)
    model.compile(
        optimizer=make_optimizer(recipe, schedule, steps_per_epoch),
        loss=loss,
        weighted_metrics=metrics or [],  # a padded batch's filling counts for nothing
        jit_compile=False,  # XLA slows depthwise convolutions down on CPU
    )
    step = bind(model)
    model.optimizer.build(step.trained)
    for layer in batch_norms(model):
        step.change(layer, "momentum", recipe.batch_norm_momentum)
    for layer in classifier_dropouts(model):
        if hasattr(layer, "seed_generator"):
            step.change(layer, "rate", recipe.dropout)
        elif recipe.dropout:
            warnings.warn(
                f"dropout layer {layer.name!r} was made with rate 0, so it has no "
                f"random state and stays off: the recipe's dropout={recipe.dropout:g} "
                "is not used",
                stacklevel=2,
            )
    return model
