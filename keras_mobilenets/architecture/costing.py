"""Parameters, mult-adds and activation memory, counted from the plan.

Conventions are the papers': a mult-add (MAdd, MAC) is one multiplication with
its addition; convolutions and the classifier count, batch norm, bias,
activation, shortcut and pooling do not.
"""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

from keras_mobilenets.architecture.arguments import check_integer
from keras_mobilenets.architecture.plan import IMAGE, Layer, make_plan
from keras_mobilenets.architecture.shapes import Resolution
from keras_mobilenets.errors import UsageError


class LayerCost(NamedTuple):
    """The cost of one layer of the plan, its batch norm included."""

    layer: Layer
    macs: int
    params: int
    trainable_params: int
    memory: int  # bytes of all activations that are alive while it runs, batch 1

    @property
    def name(self) -> str:
        return self.layer.name


class Cost(NamedTuple):
    """What a network costs.

    `params` counts every variable, as Keras does; `trainable_params` leaves out
    the moving statistics. `peak_memory` is the activation memory of the largest
    step in bytes: the input, output and any waiting shortcut of one layer, for
    one image, at `bytes_per_element`; batch norm and activation run in place. With
    `splits` a step is one layer outside the bottlenecks, and a whole bottleneck.
    """

    params: int
    trainable_params: int
    macs: int
    peak_memory: int
    bytes_per_element: int
    layers: tuple[LayerCost, ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers and lists, ready for JSON.

        "size_out" is pixels of a side, or [height, width] where the two differ.
        """
        rows = [
            {
                "name": row.name,
                "kind": row.layer.kind,
                "size_out": _listed(row.layer.size_out),
                "channels_out": row.layer.channels_out,
                "macs": row.macs,
                "params": row.params,
                "memory": row.memory,
            }
            for row in self.layers
        ]
        return {**self._asdict(), "layers": rows}


def _listed(size: Resolution) -> int | list[int]:
    return list(size) if isinstance(size, tuple) else size


def _weights(layer: Layer) -> int:
    per_output = {
        "conv": layer.kernel**2 * layer.channels_in,
        "depthwise": layer.kernel**2,
        "dense": layer.channels_in,
    }
    return per_output.get(layer.kind, 0) * layer.channels_out


def _live_elements(plan: tuple[Layer, ...]) -> list[int]:
    """Elements of all tensors that exist while each layer of the plan runs."""
    last_use = {source: layer.name for layer in plan for source in layer.inputs}
    alive = {IMAGE: plan[0].pixels_in * plan[0].channels_in}
    elements = []
    for layer in plan:
        alive[layer.name] = layer.pixels_out * layer.channels_out
        elements.append(sum(alive.values()))
        for source in layer.inputs:
            if last_use[source] == layer.name:
                del alive[source]
    return elements


def _live_elements_split(plan: tuple[Layer, ...], splits: int) -> list[int]:
    """The same where each bottleneck runs in groups of its wide channels.

    V2 section 5: its input and output, and of what is wide one group. Where the
    channels cannot be divided evenly, that is the largest.
    """
    if any(len(layer.inputs) > 1 and "expand" in layer.inputs[1] for layer in plan):
        raise UsageError(
            "splits needs what is wide to stay within its bottleneck; got "
            "shortcut='expansion', which keeps it: use shortcut='bottleneck' or 'none'"
        )
    if not any(layer.name.endswith("_expand") for layer in plan):
        raise UsageError(
            f"splits is of bottlenecks that expand (V2 section 5); got {splits} for a "
            "network without any: use mobilenet_v2 with an expansion above 1"
        )
    live: list[int] = []
    elements = _live_elements(plan)
    blocks = itertools.groupby(
        range(len(plan)), key=lambda i: plan[i].name.rsplit("_", 1)[0]
    )
    for block, numbers in blocks:
        of = [plan[i] for i in numbers]
        if not block.startswith("block_"):
            live += elements[len(live) : len(live) + len(of)]
            continue
        *expand, depthwise, project = (each for each in of if each.kind != "add")
        channels = depthwise.channels_in
        group = -(-channels // min(splits, channels))
        wide = depthwise.pixels_in * len(expand) + depthwise.pixels_out
        read = of[0].pixels_in * of[0].channels_in
        written = project.pixels_out * project.channels_out
        live += [read + written + wide * group] * len(of)
    return live


def plan_cost(
    plan: tuple[Layer, ...], bytes_per_element: int = 4, splits: int | None = None
) -> Cost:
    """The cost of a plan; see `cost`."""
    rows = []
    live = _live_elements_split(plan, splits) if splits else _live_elements(plan)
    for layer, elements in zip(plan, live, strict=True):
        weights = _weights(layer)
        bias = layer.channels_out if layer.kind == "dense" else 0
        scale_and_shift = 2 * layer.channels_out if layer.batch_norm else 0
        trainable = weights + bias + scale_and_shift
        rows.append(
            LayerCost(
                layer,
                macs=weights * layer.pixels_out,
                params=trainable + scale_and_shift,  # as many moving statistics
                trainable_params=trainable,
                memory=elements * bytes_per_element,
            )
        )
    return Cost(
        params=sum(row.params for row in rows),
        trainable_params=sum(row.trainable_params for row in rows),
        macs=sum(row.macs for row in rows),
        peak_memory=max(row.memory for row in rows),
        bytes_per_element=bytes_per_element,
        layers=tuple(rows),
    )


def cost(
    name: str = "mobilenet_v2",
    *,
    alpha: float = 1.0,
    rho: float | None = None,
    resolution: Resolution | None = None,
    channels: int = 3,
    include_top: bool = True,
    classes: int = 1000,
    bytes_per_element: int = 4,
    splits: int | None = None,
    **variant: Any,
) -> Cost:
    """What a network costs, without building it and without TensorFlow.

    Arguments are those of `build`; `bytes_per_element` (default 4, float32) is
    the size of one activation. `splits` counts the memory of V2 as `split` runs it, its
    bottlenecks in that many groups of channels; None (default) layer by layer. Raises
    the same ValueErrors as `build`.

    >>> cost("mobilenet_v2", alpha=1.0, classes=1001).macs
    300775552
    """
    check_integer("bytes_per_element", bytes_per_element, low=1)
    if splits is not None:
        splits = check_integer(
            "splits", splits, low=1, fix="None counts layer by layer"
        )
    plan = make_plan(
        name,
        alpha=alpha,
        rho=rho,
        resolution=resolution,
        channels=channels,
        include_top=include_top,
        classes=classes,
        **variant,
    )
    return plan_cost(plan, bytes_per_element, splits)
