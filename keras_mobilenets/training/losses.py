"""The recipe's loss: smoothed cross entropy on whole-number labels, and L2."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable(package="keras_mobilenets")
class SmoothedCrossentropy(keras.losses.Loss):
    """Softmax cross entropy of integer labels [batch] with label smoothing.

    Targets are (1 - s) * one_hot + s / classes, spread over all classes of the
    model, a background class included: `tf.losses.softmax_cross_entropy`, as in
    slim's train_image_classifier.py. `from_logits`: whether the model ends
    without softmax.
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
        self.label_smoothing = float(label_smoothing)
        self.from_logits = bool(from_logits)

    def call(self, y_true: tf.Tensor, y_pred: tf.Tensor) -> tf.Tensor:
        classes = y_pred.shape[-1]
        labels = tf.cast(tf.reshape(y_true, [-1]), tf.int32)
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


class _L2(keras.regularizers.L2):
    """Keras' L2 in the type of Keras' other losses, which it adds in one list.

    They differ where only the dtype policy is float64, not `floatx`.
    """

    def __call__(self, x: Any) -> tf.Tensor:
        return keras.ops.cast(super().__call__(x), keras.config.floatx())


# Where Keras layers keep the regularizer of a weight; DepthwiseConv2D keeps it apart.
_REGULARIZER_OF = {
    "kernel": ("depthwise_regularizer", "kernel_regularizer"),
    "bias": ("bias_regularizer",),
    "gamma": ("gamma_regularizer",),
    "beta": ("beta_regularizer",),
}


def regularize(model: keras.Model, weight_decay: float, scope: str) -> None:
    """Give the model's trainable variables the recipe's L2, and no other.

    The loss of a variable is weight_decay / 2 * sum(w ** 2): slim's l2_regularizer
    has the half that Keras' L2 lacks, so its 4e-5 is Keras' 2e-5.

    `scope` "kernels": convolution and classifier kernels, not depthwise kernels,
    biases or batch norm (slim's arg scopes; V1 section 3.2). "all": every
    trainable variable, as PyTorch's weight_decay does.
    """
    l2 = _L2(weight_decay / 2) if weight_decay else None
    saved = keras.regularizers.L2(weight_decay / 2) if weight_decay else None
    for layer in model._flatten_layers(include_self=False):
        full = isinstance(layer, (keras.layers.Conv2D, keras.layers.Dense))
        for weight, homes in _REGULARIZER_OF.items():
            chosen = scope == "all" or (full and weight == "kernel")
            for home in homes:
                if hasattr(layer, home):  # so that a saved model keeps it
                    setattr(layer, home, saved if chosen else None)
        for variable in layer._trainable_variables:
            chosen = scope == "all" or (full and variable is layer.kernel)
            variable.regularizer = l2 if chosen else None
