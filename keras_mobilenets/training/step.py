"""One training step of a recipe, from top to bottom, and how a model comes to take it.

`bind` gives a compiled Keras model the step of the recipe that its optimizer carries,
by attributes of that one model and its layers; `model.compile(...)` by hand takes all
of it back. `compile` binds, and so does an optimizer that Keras has loaded from a file
with its model.
"""

from __future__ import annotations

import functools
import gc
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_mobilenets.errors import UsageError
from keras_mobilenets.training.batch_norm import (
    average_statistics,
    batch_norms,
    make_call,
)
from keras_mobilenets.training.distribution import is_asynchronous, is_multi_worker
from keras_mobilenets.training.freezing import Resting, body, frozen
from keras_mobilenets.training.losses import (
    WeightDecay,
    decayed_weights,
    example_labels,
)

_INHERITED = object()  # the value of an attribute that only the class had


class TrainingStep:
    """The training step of one bound model: called by Keras as `model.train_step`."""

    def __init__(self, model: keras.Model, recipe: dict[str, Any]):
        strategy = model.distribute_strategy
        several = strategy.num_replicas_in_sync > 1
        synchronized = several and recipe["synchronize_batch_norm"]
        self.model = model
        self.replicas = strategy.num_replicas_in_sync
        self.asynchronous = is_asynchronous(strategy)
        self.in_processes = is_multi_worker(strategy)
        self.own_statistics = several and not synchronized
        self.head_steps = recipe["head_steps"]  # first, with the whole body at rest
        self.forward: Any = model  # the network, or what is left of it on features
        self.resting = Resting(frozen(model, recipe["freeze"]))
        self._head_resting = Resting(body(model) if self.head_steps else ())
        self.in_head = False  # whether the step that is traced is one of the head's
        self.stop_request: Any = None  # of a run in several processes
        self._changed: list[tuple[Any, str, Any]] = []

        for layer in batch_norms(model):
            call = make_call(layer, synchronized)
            if recipe["batch_norm"] == "frozen":
                call = functools.partial(_in_inference, call)
            self.change(layer, "call", call)
        self.moving = [] if recipe["batch_norm"] == "frozen" else batch_norms(model)
        decayed = {id(v) for v in decayed_weights(model, recipe["weight_decay_scope"])}
        decay = WeightDecay(recipe["weight_decay"]) if recipe["weight_decay"] else None
        for variable in model.weights:
            chosen = decay if id(variable) in decayed else None
            self.change(variable, "regularizer", chosen)
        self.change(model, "train_step", self)
        self.change(model, "compile", self.compile_by_hand)
        if self.head_steps:
            self.change(model, "make_train_function", self.make_train_function)
        self.labels = example_labels(model)
        if tf.distribute.has_strategy() and self.labels is not None:
            # It reduces a batch that lies on several replicas, which fails in several
            # processes, and costs a pass over the data. All it builds exists by now.
            self.change(model, "_maybe_symbolic_build", _nothing)
        if self.in_processes:
            self.change(model, "test_step", self.evaluate)

    def __call__(self, data: Any) -> dict[str, tf.Tensor]:
        """Take a step on a batch (images, labels[, weights]) of this replica."""
        with self._head_resting if self.in_head else self.resting:
            return self._train(data)

    def _train(self, data: Any) -> dict[str, tf.Tensor]:
        model, optimizer = self.model, self.model.optimizer
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        weights = model.trainable_weights

        with tf.GradientTape() as tape:
            scores = self.forward(x, training=True)
            # The loss and weight decay; this replica's share of the mean.
            loss = model.compute_loss(x, y, scores, sample_weight)
            scaled = optimizer.scale_loss(loss)  # against underflow in float16
        gradients = tape.gradient(scaled, weights)

        if self.own_statistics:  # of each replica's own batch
            average_statistics([layer for layer in self.moving if layer.trainable])
        if self.replicas > 1 and hasattr(optimizer, "inner_optimizer"):
            gradients = _finite_on_all_or_none(gradients)
        optimizer.apply(gradients, weights)  # sums over replicas; averages move too

        if self.stop_request:
            self.stop_request.tell_all()
        loss = loss * tf.cast(self.replicas, loss.dtype)
        if self.asynchronous:  # metrics are not for workers that overtake each other
            if self.labels is None or not self.labels.dtype.is_integer:
                return {"loss": loss}
            right = tf.argmax(scores, axis=-1) == tf.cast(tf.reshape(y, [-1]), tf.int64)
            accuracy = tf.reduce_mean(tf.cast(right, tf.float32))
            return {"accuracy": accuracy, "loss": loss}
        model._loss_tracker.update_state(loss, sample_weight=tf.shape(scores)[0])
        return self._logs(model.compute_metrics(x, y, scores, sample_weight))

    @property
    def trained(self) -> list[keras.Variable]:
        """The variables that are trained, at least after the head's steps."""
        with self.resting:
            return self.model.trainable_weights

    def choose_phase(self) -> None:
        """Let what is traced from now on be the step that comes next."""
        taken = int(np.array(self.model.optimizer.iterations)) if self.head_steps else 0
        self.in_head = taken < self.head_steps

    def make_train_function(self, force: bool = False) -> None:
        """`model.make_train_function`: two traces, for the head's steps and after."""
        model = self.model
        if model.train_function is not None and not force:
            return
        made = {}
        for in_head in (True, False):
            type(model).make_train_function(model, force=True)
            made[in_head] = model.train_function

        def train_function(batches: Any) -> Any:
            self.choose_phase()
            return made[self.in_head](batches)

        model.train_function = train_function

    def evaluate(self, data: Any) -> dict[str, tf.Tensor]:
        """`model.test_step` in several processes."""
        return self._logs(type(self.model).test_step(self.model, data))

    def _logs(self, logs: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """In several processes Keras reduces logs along an axis that scalars lack."""
        if not self.in_processes:
            return logs
        return {name: tf.reshape(log, [1]) for name, log in logs.items()}

    def change(self, thing: Any, name: str, value: Any) -> None:
        """Set an attribute of the model or of a part of it until the step is undone."""
        own = name in vars(thing) or isinstance(
            getattr(type(thing), name, None), property
        )
        before = getattr(thing, name) if own else _INHERITED
        self._changed.append((thing, name, before))
        setattr(thing, name, value)

    def undo(self) -> None:
        """Leave the model as it was before it was bound."""
        while self._changed:
            thing, name, before = self._changed.pop()
            if before is _INHERITED:
                delattr(thing, name)
            else:
                setattr(thing, name, before)

    def compile_by_hand(self, *args: Any, **kwargs: Any) -> None:
        """`model.compile`: from then on the model trains as Keras' own do."""
        type(self.model).compile(self.model, *args, **kwargs)
        self.undo()


def _in_inference(
    call: Any, inputs: Any, training: Any = None, mask: Any = None
) -> Any:
    """A batch norm's call that uses its moving statistics in training too."""
    return call(inputs, training=False, mask=mask)


def _nothing(*args: Any, **kwargs: Any) -> None:
    """In the place of a method that is not needed."""


def _finite_on_all_or_none(gradients: list[Any]) -> list[tf.Tensor]:
    """Gradients of which one is NaN here if one is not finite on any replica.

    Keras' loss scaling skips a step whose gradients are not finite, and looks at those
    of the first replica only, before they are summed.
    """
    finite = [
        tf.reduce_all(tf.math.is_finite(tf.convert_to_tensor(gradient)))
        for gradient in gradients
        if gradient is not None
    ]
    bad = tf.cast(~tf.reduce_all(finite), tf.float32)
    bad = tf.distribute.get_replica_context().all_reduce("sum", bad)
    gradients = list(gradients)
    for n, gradient in enumerate(gradients):
        if gradient is not None:
            nan = tf.constant(float("nan"), gradient.dtype)
            gradients[n] = tf.where(bad > 0, nan, tf.convert_to_tensor(gradient))
            break  # one is enough
    return gradients


def bind(model: keras.Model) -> TrainingStep:
    """Let a compiled model train as the recipe of its optimizer says."""
    unbind(model)
    optimizer = recipe_optimizer(model)
    step = TrainingStep(model, optimizer.recipe)
    optimizer.attach(model)
    if step.labels is not None:
        _create_state(model, step.labels)
    return step


def unbind(model: keras.Model) -> None:
    """Undo `bind`, where it was done."""
    if is_bound(model):
        model.train_step.undo()


def is_bound(model: keras.Model) -> bool:
    """Whether a recipe trains this model."""
    return isinstance(model.train_step, TrainingStep)


def check_compiled(model: keras.Model) -> None:
    """Refuse a model that has nothing to train with.

    Raises:
        UsageError: it is not compiled, or it is no Keras model.
    """
    if not isinstance(model, keras.Model):
        raise UsageError(f"model must be a keras.Model; got {model!r}")
    if not model.compiled or model.optimizer is None:
        raise UsageError(
            f"model must be compiled; got {model.name!r}, which is not: call "
            "keras_mobilenets.compile(model, ...) first"
        )


def recipe_optimizer(model: keras.Model) -> Any:
    """The optimizer of a compiled model, without the loss scaling around it."""
    optimizer = getattr(model, "optimizer", None)
    return getattr(optimizer, "inner_optimizer", optimizer)


def find_model(optimizer: keras.optimizers.Optimizer) -> keras.Model:
    """The model that is compiled with `optimizer`.

    Keras tells an optimizer the trainable variables only, also where it loads both from
    a file; so this looks at what lives in the process, once.

    Raises:
        UsageError: there is none.
    """
    for thing in gc.get_objects():
        if issubclass(type(thing), keras.Model):
            if recipe_optimizer(thing) is optimizer:
                return thing
    raise UsageError(
        "the optimizer of a recipe works only in a compiled Keras model; got none that "
        "has it: take keras_mobilenets.RMSprop without recipe in a loop of your own"
    )


def _create_state(model: keras.Model, y_true: tf.Tensor) -> None:
    """Create the variables of metrics and loss before the first step.

    Otherwise Keras creates them, and the optimizer's, inside the first traced step, and
    tf.function then traces the whole step a second time.
    """
    strategy = model.distribute_strategy
    y_pred = tf.zeros([1, model.outputs[0].shape[-1]], model.outputs[0].dtype)
    if model._compile_metrics is not None:
        with strategy.scope():  # what is given by name; replicas could not make it
            model._compile_metrics.build(y_true, y_pred)

    def touch() -> None:
        model.compute_loss(None, y_true, y_pred)
        model.compute_metrics(None, y_true, y_pred)

    tf.function(lambda: strategy.run(touch), autograph=False).get_concrete_function()
