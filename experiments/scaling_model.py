"""A step of training on n GPUs: what each computes, sends, waits for and holds.

A model, not a measurement. A step is the work of one GPU (each operation at the speed
of the arithmetic or of the memory, whichever takes longer), then what all say to each
other: synchronised batch norm, two messages a layer one after another, and the
gradients, one message, as TensorFlow sends them. Pure Python.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

from experiments.scaling_assumptions import NVLINK_HOP, Gpu, Link
from keras_mobilenets.architecture import Cost
from keras_mobilenets.recipe import Recipe

TRAIN_IMAGES, VALIDATION_IMAGES = 1_281_167, 50_000  # ImageNet's
GPU_COUNTS = tuple(2**power for power in range(11))
LARGE_BATCH, HUGE_BATCH = 8192, 32768  # see warnings_of
NORM_BYTES = 8  # training.batch_norm sums in float64
FUSED_NORM = (8, 2)  # passes: three forward, five backward; kernels


def gradient_bytes(price: Cost) -> int:
    """What all GPUs add up at the end of a step, float32."""
    return 4 * price.trainable_params


def norm_messages(price: Cost) -> list[int]:
    """Bytes of each message of synchronised batch norm in a step.

    A layer sends a count and two sums a channel forward, and two sums back.
    """
    widths = [r.layer.channels_out for r in price.layers if r.layer.batch_norm]
    return [NORM_BYTES * (2 * width + extra) for width in widths for extra in (1, 0)]


def _passes(price: Cost, norm: tuple[int, int]) -> Iterable[tuple[int, int, int]]:
    """Mult-adds, elements moved and kernels of a step's operations, for one image.

    Forward and backward. A convolution reads and writes its input and output three
    times (output, gradient of the input, gradient of the filter); batch norm makes
    `norm` passes over its output in so many kernels; ReLU6 two forward and three
    backward; a shortcut's sum three, and the sum of its gradients again.
    """
    for row in price.layers:
        layer = row.layer
        inward = layer.pixels_in * layer.channels_in
        outward = layer.pixels_out * layer.channels_out
        if row.macs:
            yield 3 * row.macs, 3 * (inward + outward), 3
        if layer.kind == "avg_pool":
            yield 0, 2 * (inward + outward), 2
        if layer.kind == "add":
            yield 0, 6 * outward, 2
        if layer.batch_norm:
            yield 0, norm[0] * outward, norm[1]
        if layer.activation:
            yield 0, 5 * outward, 2


def compute_seconds(
    price: Cost,
    batch: int,
    gpu: Gpu,
    given: dict[str, float],
    norm: tuple[int, int] = FUSED_NORM,
) -> float:
    """One GPU's own work in a step of `batch` images."""
    flops = gpu.flops * given["flops_efficiency"]
    bandwidth = gpu.bandwidth * given["memory_efficiency"]
    seconds, kernels = 0.0, 0
    for macs, elements, launched in _passes(price, norm):
        moved = elements * price.bytes_per_element
        seconds += batch * max(2 * macs / flops, moved / bandwidth)
        kernels += launched
    return max(seconds, kernels * given["kernel_us"] * 1e-6)


def ring(size: float, ranks: int, link: Link) -> float:
    """All-reduce in a ring: each sends 2 (n - 1) parts of an n-th."""
    hops = 2 * (ranks - 1)
    return hops / ranks * size / link.bandwidth + hops * link.hop


def tree(size: float, ranks: int, link: Link) -> float:
    """All-reduce up and down NCCL's double binary tree."""
    if ranks == 1:
        return 0.0
    return 2 * size / link.bandwidth + 2 * math.ceil(math.log2(ranks)) * link.hop


def _flat(size: float, gpus: int, machines: int, inside: Link, between: Link) -> float:
    """One ring through all GPUs, at the speed of its slowest link."""
    slowest = inside if machines == 1 else between
    hops, far = 2 * (gpus - 1), 2 * (machines - 1)
    waiting = (hops - far) * inside.hop + far * between.hop
    return hops / gpus * size / slowest.bandwidth + waiting


def _in_two_levels(over: Callable[[float, int, Link], float]) -> Callable[..., float]:
    def all_reduce(
        size: float, gpus: int, machines: int, inside: Link, between: Link
    ) -> float:
        local = ring(size, gpus // machines, inside)
        return local + over(size, machines, between)

    return all_reduce


ALGORITHMS: dict[str, Callable[[float, int, int, Link, Link], float]] = {
    "ring": _flat,
    "rings": _in_two_levels(ring),
    "trees": _in_two_levels(tree),
}


def all_reduce_seconds(
    size: float,
    gpus: int,
    gpu: Gpu,
    link: Link,
    given: dict[str, float],
    algorithm: str | None = None,
) -> float:
    """Seconds to add up `size` bytes over all GPUs; by default the quickest way.

    Within a machine over NVLink, between machines over one `link` a machine: a ring
    through all, rings on both levels, or a ring within and trees between, of which
    NCCL chooses by a table of its own.
    """
    if gpus == 1:
        return 0.0
    machines = math.ceil(gpus / given["gpus_per_machine"])
    inside = Link(gpu.nvlink * given["link_efficiency"], NVLINK_HOP)
    between = link._replace(bandwidth=link.bandwidth * given["link_efficiency"])
    ways = [ALGORITHMS[algorithm]] if algorithm else ALGORITHMS.values()
    quickest = min(way(size, gpus, machines, inside, between) for way in ways)
    return given["collective_us"] * 1e-6 + quickest


def kept_elements(price: Cost) -> int:
    """Numbers of one image that the forward pass keeps for the backward pass.

    The image; what every batch norm reads; what every convolution and the classifier
    read, and every ReLU6 wrote, which is mostly the same.
    """
    rows = [row.layer for row in price.layers]
    weighted = [row.layer for row in price.layers if row.macs]
    read = {source for layer in weighted for source in layer.inputs}
    kept = rows[0].pixels_in * rows[0].channels_in
    for layer in rows:
        tensors = layer.batch_norm + bool(layer.activation or layer.name in read)
        kept += tensors * layer.pixels_out * layer.channels_out
    return kept


def memory_bytes(
    price: Cost, recipe: Recipe, batch: int, gpus: int, given: dict[str, float]
) -> dict[str, float]:
    """What one GPU holds, by kind."""
    slots = {"rmsprop": 2, "sgd": 1}[recipe.optimizer]
    image = price.layers[0].layer.pixels_in * price.layers[0].layer.channels_in
    return {
        "weights": 4 * price.params,
        "slots": 4 * slots * price.trainable_params,
        "average": 4 * price.params * (recipe.ema_decay is not None),
        # And, where they are sent, the copy in one piece.
        "gradients": gradient_bytes(price) * (2 if gpus > 1 else 1),
        "activations": price.bytes_per_element * batch * kept_elements(price),
        "input": 2 * 4 * batch * image,  # the next batch too
        "framework": given["framework_gb"] * 1e9,
    }


def warnings_of(row: dict[str, Any], gpu: Gpu) -> str:
    """Where a row stops being sensible.

    Goyal et al. 2017 (arXiv:1706.02677) train ResNet-50 as well at 8,192 images a step
    as at 256, with five epochs of warm-up, which slim has not, and worse beyond. Up to
    32k others change the optimizer (LARS, arXiv:1708.03888).
    """
    return ", ".join(
        name
        for name, holds in {
            f"batch > {LARGE_BATCH // 1024}k": (
                LARGE_BATCH < row["global_batch"] <= HUGE_BATCH
            ),
            f"batch > {HUGE_BATCH // 1024}k": row["global_batch"] > HUGE_BATCH,
            "input": row["waits_for_input"],
            "communication > 50 %": row["communication"] > 0.5,
            "memory": row["memory_gb"] > gpu.memory / 1e9,
        }.items()
        if holds
    )


def predict(
    price: Cost,
    recipe: Recipe,
    gpus: int,
    gpu: Gpu,
    link: Link,
    given: dict[str, float],
    *,
    step_seconds: float | None = None,
    synchronized: bool = True,
    algorithm: str | None = None,
) -> dict[str, Any]:
    """Time and memory of a recipe's run on ImageNet with so many GPUs.

    `step_seconds` of one GPU alone, where it was measured; without `synchronized`
    every GPU has batch statistics of its own, as slim's clones had.
    """
    batch = recipe.batch_size
    computing = step_seconds or compute_seconds(price, batch, gpu, given)
    send = [gpus, gpu, link, given, algorithm]
    synchronized = synchronized and gpus > 1
    unfused = 0.0
    if synchronized:
        norm = int(given["norm_passes"]), int(given["norm_kernels"])
        unfused = compute_seconds(price, batch, gpu, given, norm)
        unfused -= compute_seconds(price, batch, gpu, given)
    messages = norm_messages(price) if synchronized else []
    norms = sum(all_reduce_seconds(size, *send) for size in messages)
    # What the backward pass, two thirds of the work, may hide.
    gradients = all_reduce_seconds(gradient_bytes(price), *send)
    gradients -= min(gradients, computing * 2 / 3) * given["overlap"]
    working = computing + unfused + norms + gradients
    reading = batch / (given["cores_per_gpu"] * given["images_per_core_s"])
    step = max(working, reading)
    steps = TRAIN_IMAGES // (batch * gpus)
    # A third of the work of training, a validation image; one save each 1,000 steps.
    validating = VALIDATION_IMAGES / (batch * gpus) * computing / 3
    saving = given["checkpoint_s"] * (1 + steps // 1000)
    epoch = steps * step + validating + saving
    memory = memory_bytes(price, recipe, batch, gpus, given)
    row = {
        "gpus": gpus,
        "global_batch": batch * gpus,
        "learning_rate": recipe.learning_rate
        * (gpus if recipe.scale_learning_rate else 1),
        "step_ms": 1e3 * step,
        "compute_ms": 1e3 * computing,
        "unfused_ms": 1e3 * unfused,  # what synchronised batch norm computes more
        "norm_ms": 1e3 * norms,
        "gradient_ms": 1e3 * gradients,
        "communication": (norms + gradients) / working,
        "waits_for_input": reading > working,
        "images_per_s": batch * gpus / step,
        "epoch_min": epoch / 60,
        "run_h": recipe.epochs * epoch / 3600,
        "memory_gb": sum(memory.values()) / 1e9,
    }
    return {**row, "warnings": warnings_of(row, gpu)}


def sweep(
    price: Cost, recipe: Recipe, *rest: Any, counts: Iterable[int] = GPU_COUNTS, **how
) -> list[dict[str, Any]]:
    """`predict` for every number of GPUs, with the efficiency against one."""
    alone = predict(price, recipe, 1, *rest, **how)["images_per_s"]
    rows = [predict(price, recipe, gpus, *rest, **how) for gpus in counts]
    return [r | {"efficiency": r["images_per_s"] / r["gpus"] / alone} for r in rows]


def predict_asynchronous(
    price: Cost,
    recipe: Recipe,
    workers: int,
    servers: int,
    gpu: Gpu,
    link: Link,
    given: dict[str, float],
) -> dict[str, Any]:
    """Parameter servers, a machine each, with workers of one GPU who do not wait.

    In a step a worker reads all variables and sends back gradients and batch-norm
    statistics, as many bytes. The moving average is one variable on one server, which
    reads the variables of all others for each step of any worker.
    """
    size = 4 * price.params
    bandwidth = link.bandwidth * given["link_efficiency"]
    sharing = min(workers, given["gpus_per_machine"])  # a machine's link
    computing = compute_seconds(price, recipe.batch_size, gpu, given)
    alone = computing + 2 * (size * sharing / bandwidth + link.hop)
    average = size * (1 - 1 / servers) * (recipe.ema_decay is not None)
    steps = {
        "workers": workers / alone,
        "servers": bandwidth / (size / servers),
        "average": bandwidth / average if average else math.inf,
    }
    limit = min(steps, key=steps.get)
    return {
        "workers": workers,
        "servers": servers,
        "bytes_a_step": 2 * size,
        "images_per_s": recipe.batch_size * steps[limit],
        "efficiency": steps[limit] * computing / workers,
        "staleness": workers - 1,  # updates by others between reading and writing
        "limit": limit,
    }
