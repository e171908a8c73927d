"""The recipe's loss: smoothed cross entropy on whole-number labels, and L2; top-5."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from keras_mobilenets.architecture.arguments import check_number, shown, suggest
from keras_mobilenets.errors import UsageError
from keras_mobilenets.training.outputs import (
    KERNELS,
    SEPARABLE,
    all_layers,
    ends_in_logits,
)


@keras.saving.register_keras_serializable(package="keras_mobilenets")
class SmoothedCrossentropy(keras.losses.Loss):
    """Softmax cross entropy of integer labels [batch] with label smoothing.

    Targets are (1 - s) * one_hot + s / classes, spread over all classes of the
    model, a background class included: `tf.losses.softmax_cross_entropy`, as in
    slim's train_image_classifier.py. `from_logits`: whether the model ends
    without softmax.

    Raises:
        UsageError: labels of another shape, one-hot ones for instance.
        tf.errors.InvalidArgumentError: in the step, a label that is no whole number
            from 0 to classes - 1.
    """

    def __init__(
        self,
        label_smoothing: float = 0.0,
        from_logits: bool = True,
        reduction: str = "sum_over_batch_size",
        name: str = "smoothed_crossentropy",
        **kwargs: Any,
    ):
        super().__init__(name=name, reduction=reduction, **kwargs)
        self.label_smoothing = check_number(
            "label_smoothing", label_smoothing, low=0, high=1
        )
        self.from_logits = bool(from_logits)

    def call(self, y_true: tf.Tensor, y_pred: tf.Tensor) -> tf.Tensor:
        classes = y_pred.shape[-1]
        shape = y_true.shape
        if shape.rank not in (None, 1) and (shape.rank != 2 or shape[1] != 1):
            raise UsageError(
                f"labels must be whole numbers of shape [batch]; got shape {shape}: "
                "turn one-hot labels into numbers by tf.argmax(labels, axis=-1), or "
                "give loss='binary_crossentropy' where an image may have several"
            )
        labels = tf.reshape(y_true, [-1])  # Keras has made them floats
        known = (labels >= 0) & (labels < classes) & (labels == tf.floor(labels))
        wrong = tf.boolean_mask(labels, ~known)
        message = f"labels must be whole numbers from 0 to {classes - 1}; got"
        checked = tf.debugging.Assert(tf.reduce_all(known), [message, wrong])
        # Without it a label out of range is a row of zeros, and the loss falls.
        with tf.control_dependencies([] if checked is None else [checked]):
            labels = tf.cast(labels, tf.int32)
        targets = tf.one_hot(labels, classes, dtype=y_pred.dtype)
        smoothing = self.label_smoothing
        if smoothing:
            targets = targets * (1 - smoothing) + smoothing / classes
        return keras.ops.categorical_crossentropy(
            targets, y_pred, from_logits=self.from_logits
        )

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "label_smoothing": self.label_smoothing,
            "from_logits": self.from_logits,
        }


@keras.saving.register_keras_serializable(package="keras_mobilenets")
class TopFive(keras.metrics.SparseTopKCategoricalAccuracy):
    """How often the label is among the five most probable classes.

    Keras' metric, for outputs of every type: TensorFlow ranks float32 only.
    """

    def __init__(self, name: str = "top5", **kwargs: Any):
        super().__init__(name=name, **kwargs)

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        super().update_state(y_true, tf.cast(y_pred, tf.float32), sample_weight)


class _CrossEntropy(NamedTuple):
    """A cross entropy of Keras, and what makes probabilities for it."""

    name: str
    made: Callable[..., keras.losses.Loss]
    squashing: str
    smooths: bool  # has label smoothing


_CROSS_ENTROPIES = tuple(
    _CrossEntropy(name, getattr(keras.losses, made), squashing, "sparse" not in name)
    for name, made, squashing in (
        ("binary_crossentropy", "BinaryCrossentropy", "sigmoid"),
        ("binary_focal_crossentropy", "BinaryFocalCrossentropy", "sigmoid"),
        ("categorical_crossentropy", "CategoricalCrossentropy", "softmax"),
        ("categorical_focal_crossentropy", "CategoricalFocalCrossentropy", "softmax"),
        ("sparse_categorical_crossentropy", "SparseCategoricalCrossentropy", "softmax"),
    )
)


def other_loss(
    loss: Any, model: keras.Model, from_logits: bool | None, label_smoothing: float
) -> Any:
    """A loss in the place of the recipe's, that agrees with what the model ends in.

    A cross entropy of Keras that is given by its name takes logits where the model ends
    in them, and smooths labels as the recipe says.

    Raises:
        UsageError: it is none, takes logits for probabilities or the reverse, or the
            recipe smooths labels and it cannot, or was made before.
    """
    found = loss
    if isinstance(loss, str):
        try:
            found = keras.losses.get(loss)
        except ValueError as error:
            names = [known.name for known in _CROSS_ENTROPIES]
            raise UsageError(
                f"loss must be a Keras loss, or the name of one, such as "
                f"{', '.join(names)}; got {loss!r}{suggest(loss, names)}"
            ) from error
    if not callable(found) or isinstance(found, type):
        raise UsageError(
            "loss must be a Keras loss, such as keras.losses.MeanSquaredError(), its "
            f"name, or a function (labels, scores); got {shown(loss)}"
        )
    for known in _CROSS_ENTROPIES:
        by_name = found is keras.losses.get(known.name)
        if by_name or isinstance(found, known.made):  # type: ignore[arg-type]
            break
    else:
        _check_smoothing(label_smoothing, loss)
        if from_logits is not None:
            raise UsageError(
                f"from_logits is for cross entropies; got {from_logits!r} with "
                f"loss={shown(loss)}"
            )
        return found
    if from_logits is None:
        from_logits = ends_in_logits(model, known.squashing)
    if by_name and known.smooths:
        return known.made(from_logits=from_logits, label_smoothing=label_smoothing)
    _check_smoothing(label_smoothing, loss)
    if by_name:
        return known.made(from_logits=from_logits)
    if found.from_logits != from_logits:
        ends = "logits" if from_logits else known.squashing
        raise UsageError(
            f"loss must take what the model ends in, {ends}; got {known.made.__name__}"
            f"(from_logits={found.from_logits}): give from_logits={from_logits}"
        )
    return found


def _check_smoothing(label_smoothing: float, loss: Any) -> None:
    if label_smoothing:
        raise UsageError(
            "label_smoothing is of the recipe's own loss, and of Keras' cross "
            f"entropies by name; got {label_smoothing:g} with loss={shown(loss)}: give "
            "label_smoothing=0 (losses of Keras that can smooth have an option for it)"
        )


def example_labels(model: keras.Model) -> tf.Tensor | None:
    """Labels of one image, as the loss of a compiled model takes them.

    None of a loss of which that is not known.
    """
    loss = model.loss
    if isinstance(
        loss, (SmoothedCrossentropy, keras.losses.SparseCategoricalCrossentropy)
    ):
        return tf.zeros([1], tf.int32)
    of_keras = isinstance(loss, str) or type(loss).__module__.startswith("keras.")
    if of_keras and isinstance(loss, keras.losses.Loss):
        return tf.zeros([1, model.outputs[0].shape[-1]], model.outputs[0].dtype)
    return None


class WeightDecay(keras.regularizers.L2):
    """weight_decay / 2 * sum(w ** 2): slim's l2_regularizer.

    It has the half that Keras' L2 lacks, so its 4e-5 is Keras' 2e-5. In the type of
    Keras' other losses, which it adds in one list; they differ where only the dtype
    policy is float64, not `floatx`.
    """

    def __init__(self, weight_decay: float):
        super().__init__(weight_decay / 2)

    def __call__(self, x: Any) -> tf.Tensor:
        return keras.ops.cast(super().__call__(x), keras.config.floatx())


def decayed_weights(model: keras.Model, scope: str) -> list[keras.Variable]:
    """The weights of `model` that a recipe's weight decay pulls towards zero.

    `scope` "kernels": kernels of convolutions, transposed ones too, and of dense
    layers, and the pointwise half of separable convolutions; not depthwise kernels,
    biases or batch norm (slim's arg scopes; V1 section 3.2). "all": every trainable
    variable, as PyTorch's weight_decay does.
    """
    if scope == "all":
        return list(model.trainable_weights)
    chosen = []
    for layer in all_layers(model):
        if isinstance(layer, KERNELS):
            chosen.append(layer.kernel)
        elif isinstance(layer, SEPARABLE):
            chosen.append(layer.pointwise_kernel)
    return chosen
