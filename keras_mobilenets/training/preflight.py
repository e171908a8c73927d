"""What is known to break a run on several replicas, found before anything is traced."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from keras_mobilenets.architecture.arguments import check_integer
from keras_mobilenets.errors import UsageError
from keras_mobilenets.recipe import Recipe, get_recipe
from keras_mobilenets.training.distribution import is_multi_worker
from keras_mobilenets.training.scale import make_scale
from keras_mobilenets.training.step import check_compiled, is_bound
from keras_mobilenets.training.strategies import make_strategy

# What `fit` takes; of other than datasets no check knows anything.
FED = (
    *(tf.data.Dataset, tf.distribute.DistributedDataset, tf.Tensor, np.ndarray),
    *(keras.utils.PyDataset, Generator, list, tuple, dict),
)


class _Plan(NamedTuple):
    """What the checks look at; `batch` is None where it is not known."""

    model: keras.Model
    replicas: int
    workers: bool  # several processes
    gpu: bool
    batch: int | None
    batches: Any
    validation: Any


def _batch_size(batches: Any) -> int | None:
    """Images of every batch of a dataset; None where they vary or are not known."""
    if not isinstance(batches, tf.data.Dataset):
        return None
    return tf.nest.flatten(batches.element_spec)[0].shape[0]


def _may_end_short(batches: Any) -> bool:
    return (
        isinstance(batches, tf.data.Dataset)
        and _batch_size(batches) is None
        and batches.cardinality() != tf.data.INFINITE_CARDINALITY
    )


def _leaves_replicas_empty(batches: Any, replicas: int) -> bool:
    """Whether a batch has fewer images than there are replicas; reads the sizes."""
    if replicas == 1 or not isinstance(batches, tf.data.Dataset):
        return False
    size = _batch_size(batches)
    if size is not None:
        return size < replicas
    if batches.cardinality() == tf.data.INFINITE_CARDINALITY:
        return False
    sizes = batches.map(lambda *parts: tf.shape(tf.nest.flatten(parts)[0])[0])
    return any(size < replicas for size in sizes.as_numpy_iterator())


def _shards_by_file(plan: _Plan) -> bool:
    if not (plan.workers and isinstance(plan.batches, tf.data.Dataset)):
        return False
    policy = plan.batches.options().experimental_distribute.auto_shard_policy
    by_file = tf.data.experimental.AutoShardPolicy
    return policy in (by_file.FILE, by_file.AUTO)


# Whether it is so, what it does, and what to do instead. All were seen to happen with
# Keras 3.15 and TensorFlow 2.21.
CHECKS: tuple[tuple[Callable[[_Plan], Any], str], ...] = (
    (
        lambda p: p.model.jit_compile is True and not p.gpu,
        "jit_compile=True makes depthwise convolutions 10 to 40 times slower on CPUs: "
        "compile with jit_compile=False",
    ),
    (
        lambda p: p.model.jit_compile is True and p.replicas > 1,
        "jit_compile=True fails under a strategy: compile with jit_compile=False",
    ),
    (
        lambda p: (p.model.steps_per_execution or 1) > 1 and p.replicas > 1,
        "steps_per_execution above 1 fails under a strategy: leave it at 1",
    ),
    (
        lambda p: p.model.optimizer.gradient_accumulation_steps and p.replicas > 1,
        "gradient_accumulation_steps of the optimizer fails under a strategy: take a "
        "larger batch or more replicas",
    ),
    (
        lambda p: (
            p.model.optimizer.use_ema
            and p.model.optimizer.ema_overwrite_frequency
            and p.replicas > 1
        ),
        "ema_overwrite_frequency of the optimizer fails under a strategy: leave it "
        "None, or use the recipe's ema_decay",
    ),
    (
        lambda p: p.batch is not None and p.batch < p.replicas,
        "a batch smaller than the number of replicas leaves some with nothing, and "
        "batch norm turns all weights into NaN: take at least one image a replica",
    ),
    (
        lambda p: p.replicas > 1 and _may_end_short(p.batches),
        "a last batch that may be short leaves some replicas with nothing, and batch "
        "norm turns all weights into NaN: batch with drop_remainder=True",
    ),
    (
        lambda p: _leaves_replicas_empty(p.validation, p.replicas),
        "a validation batch smaller than the number of replicas leaves some with "
        "nothing, which fails in some layers: load_data(..., pad_evaluation=True), "
        "or batch with drop_remainder=True",
    ),
    (
        lambda p: p.workers and not is_bound(p.model),
        "Keras' own compile fails in fit with several workers: use "
        "keras_mobilenets.compile",
    ),
    (
        _shards_by_file,
        "sharding by file fails, or repeats data, with fewer files than workers: set "
        "the dataset's auto_shard_policy to DATA",
    ),
)


def check_scale(
    images: int,
    recipe: str | Recipe = "slim_v2",
    *,
    strategy: str | tf.distribute.Strategy = "auto",
    cpu_replicas: int | None = None,
    **overrides: Any,
) -> dict[str, Any]:
    """What a run on `images` training images would be on these devices, in numbers.

    Args:
        images: how many there are to train on.
        recipe, **overrides: as in `compile`; `batch_size` is that of one replica.
        strategy, cpu_replicas: as in `train`.

    Returns:
        {"replicas", "workers", "batch_size", "learning_rate", "asynchronous",
        "steps_per_epoch", "problems"}; problems are sentences.

    Raises:
        ValueError: a strategy that this machine cannot follow.

    Example:
        km.check_scale(1_281_167, "slim_v2", strategy="mirrored")
    """
    images = check_integer("images", images, low=0)
    recipe = get_recipe(recipe, **overrides)
    scale = make_scale(recipe, make_strategy(strategy, cpu_replicas))
    problems = []
    if images < scale.batch_size:
        problems.append(
            f"a step takes {scale.batch_size:,} images ({scale.replicas} replicas), "
            f"and there are {images:,}: take a batch_size of at most "
            f"{images // scale.replicas}"
        )
    if scale.batch_size == 1:
        problems.append("batch norm learns nothing from one image: raise batch_size")
    return {
        **scale._asdict(),
        "steps_per_epoch": images // scale.batch_size,
        "problems": problems,
    }


def preflight(model: keras.Model, batches: Any = None, validation: Any = None) -> None:
    """Refuse what is known to break, or ruin, the training of a compiled model.

    Args:
        model: compiled, in the scope of its strategy.
        batches: what `fit` is to be given, if it is to be looked at too.
        validation: its `validation_data`. On several replicas it is read once, if
            its batches may differ in size.

    Raises:
        UsageError: with everything that was found, and what to do instead; or the
            model is not compiled.

    Example:
        km.preflight(model, splits.train, splits.validation)
        model.fit(splits.train, validation_data=splits.validation)
    """
    check_compiled(model)
    for name, value in (("batches", batches), ("validation", validation)):
        if value is not None and not isinstance(value, FED):
            raise UsageError(
                f"{name} must be what fit takes: a dataset, arrays or a PyDataset; got "
                f"{value!r}"
            )
    strategy = model.distribute_strategy
    plan = _Plan(
        model,
        strategy.num_replicas_in_sync,
        is_multi_worker(strategy),
        bool(tf.config.list_physical_devices("GPU")),
        _batch_size(batches),
        batches,
        validation,
    )
    found = [text for is_so, text in CHECKS if is_so(plan)]
    if found:
        raise UsageError(
            f"this model cannot be trained as it is, on {plan.replicas} replicas: "
            + "; ".join(found)
        )
