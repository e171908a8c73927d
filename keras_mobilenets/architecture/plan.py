"""The plan: a paper's table, alpha and an input size as one tuple of layers.

The Keras builder and the cost model both read the plan, so a network and its
cost cannot drift apart. Follows slim's `mobilenet_v1.py` and
`mobilenet/mobilenet.py` for channel rounding, SAME padding and dilation.

The two blocks, with the names of their layers; each convolution is followed by batch
norm (BN). A block of stride 2 has it in its depthwise convolution.

    V1: depthwise separable convolution     V2: inverted residual with linear bottleneck
    (V1 section 3.1, figure 3)              (V2 section 3.3, figures 3b and 4d, table 1)

        c channels                              c channels, few ------------+
            |                                       |                       |
    3x3 depthwise, stride s                 1x1 convolution to t * c        |
    BN, ReLU6       _depthwise              BN, ReLU6       _expand         |
            |                                       |         (not if t = 1)|
    1x1 convolution to c'                   3x3 depthwise, stride s         |
    BN, ReLU6       _project                BN, ReLU6       _depthwise      | shortcut,
            |                                       |                       | if s = 1
        c' channels                         1x1 convolution to c'           | and c' = c
                                            BN, linear      _project        |
                                                    |                       |
                                                    + <---  _add -----------+
                                                    |
                                                c' channels, few
"""

from __future__ import annotations

from typing import Any, NamedTuple

from keras_mobilenets.architecture.arguments import (
    VARIANTS,
    check_alpha,
    check_channels,
    check_choice,
    check_classes,
    check_flag,
    check_known,
    check_name,
    check_resolution,
    check_variant,
)
from keras_mobilenets.architecture.shapes import (
    Resolution,
    as_resolution,
    pixels,
    sides,
)
from keras_mobilenets.architecture.tables import (
    NETWORKS,
    Bottleneck,
    Conv,
    Separable,
    make_divisible,
    vary,
)

IMAGE = "image"  # what the first layer reads
ARGUMENTS = (
    "alpha", "rho", "resolution", "channels", "include_top", "pooling", "classes",
)  # fmt: skip


class Layer(NamedTuple):
    """One layer: what it computes, and what goes in and out.

    `kind` is "conv", "depthwise", "add", "avg_pool", "max_pool", "dropout" or
    "dense". `inputs` names the layers that feed it. Sizes are pixels of a side, or
    (height, width) where the two differ. A layer with `batch_norm` has no bias;
    `activation` follows the batch norm.
    """

    name: str
    kind: str
    inputs: tuple[str, ...]
    size_in: Resolution
    size_out: Resolution
    channels_in: int
    channels_out: int
    kernel: int = 1
    stride: int = 1
    dilation: int = 1
    batch_norm: bool = False
    activation: str | None = None

    @property
    def pixels_in(self) -> int:
        """Height times width of what goes in."""
        return pixels(self.size_in)

    @property
    def pixels_out(self) -> int:
        """Height times width of what comes out."""
        return pixels(self.size_out)


class _Pen:
    """Writes layers one after another, keeping track of size and channels."""

    def __init__(
        self,
        resolution: Resolution,
        channels: int,
        activation: str,
        output_stride: int | None,
    ):
        self.layers: list[Layer] = []
        self.last = IMAGE
        self.size = resolution
        self.channels = channels
        self.activation = activation
        self.output_stride = output_stride
        self.stride_so_far = 1
        self.dilation = 1

    def write(
        self, name: str, kind: str, channels: int, size: Resolution, **fields: Any
    ) -> None:
        fields.setdefault("inputs", (self.last,))
        self.layers.append(
            Layer(
                name,
                kind,
                size_in=self.size,
                size_out=size,
                channels_in=self.channels,
                channels_out=channels,
                **fields,
            )
        )
        self.last, self.size, self.channels = name, size, channels

    def convolve(
        self,
        name: str,
        kind: str,
        channels: int,
        *,
        linear: bool = False,
        **fields: Any,
    ) -> None:
        stride = fields.get("stride", 1)
        # SAME padding
        height, width = (-(-side // stride) for side in sides(self.size))
        size = as_resolution(height, width)
        activation = None if linear else self.activation
        self.write(
            name, kind, channels, size, batch_norm=True, activation=activation, **fields
        )

    def dilate(self, stride: int) -> tuple[int, int]:
        """(stride, dilation) of a block once `output_stride` is in force.

        As in slim: where the map is already as small as wanted, the block keeps
        its size and the blocks after it dilate instead.
        """
        if self.stride_so_far == self.output_stride:
            dilation = self.dilation
            self.dilation *= stride
            return 1, dilation
        self.stride_so_far *= stride
        return stride, 1


def _conv(pen: _Pen, row: Conv, channels: int) -> None:
    stride, _ = pen.dilate(row.stride)
    pen.convolve(row.name, "conv", channels, kernel=row.kernel, stride=stride)


def _separable(
    pen: _Pen, block: str, row: Separable, stride: int, channels: int
) -> None:
    stride, dilation = pen.dilate(stride)
    spatial: dict[str, Any] = {"kernel": 3, "stride": stride, "dilation": dilation}
    if not row.separable:
        pen.convolve(f"{block}_conv", "conv", channels, **spatial)
        return
    pen.convolve(f"{block}_depthwise", "depthwise", pen.channels, **spatial)
    pen.convolve(f"{block}_project", "conv", channels)


def _bottleneck(
    pen: _Pen, block: str, row: Bottleneck, stride: int, channels: int, wide: str | None
) -> str | None:
    """Write one inverted residual; returns what an "expansion" shortcut starts from.

    `wide` is the expansion of the block before, where that block kept size and
    width: then this block's expansion has the same shape, and the shortcuts
    "between expansions" of V2 figure 6b run parallel to those between
    bottlenecks, one for one.
    """
    stride, dilation = pen.dilate(stride)
    narrow, narrow_channels = pen.last, pen.channels
    expanded = make_divisible(row.expansion * pen.channels)
    if row.expansion > 1 and expanded > pen.channels:
        pen.convolve(f"{block}_expand", "conv", expanded)
        if row.shortcut == "expansion" and wide:
            pen.write(
                f"{block}_add", "add", expanded, pen.size, inputs=(wide, pen.last)
            )
    expansion = pen.last
    pen.convolve(
        f"{block}_depthwise",
        "depthwise",
        pen.channels,
        kernel=3,
        stride=stride,
        dilation=dilation,
    )
    pen.convolve(f"{block}_project", "conv", channels, linear=row.linear)
    keeps_shape = stride == 1 and channels == narrow_channels
    if row.shortcut == "bottleneck" and keeps_shape:
        pen.write(f"{block}_add", "add", channels, pen.size, inputs=(narrow, pen.last))
    return expansion if keeps_shape and expansion != narrow else None


def make_plan(
    name: str = "mobilenet_v2",
    *,
    alpha: float = 1.0,
    rho: float | None = None,
    resolution: Resolution | None = None,
    channels: int = 3,
    include_top: bool = True,
    pooling: str | None = None,
    classes: int = 1000,
    **variant: Any,
) -> tuple[Layer, ...]:
    """The layers of a network, in forward order.

    Arguments are those of `build`; all are checked here, ValueError says what
    is accepted.

    >>> [layer.name for layer in make_plan("mobilenet_v1", alpha=0.5)][:3]
    ['stem', 'block_1_depthwise', 'block_1_project']
    """
    name = check_name(name)
    check_known(name, variant, (*ARGUMENTS, *dict.fromkeys(sum(VARIANTS.values(), ()))))
    variant = check_variant(name, variant)
    alpha = check_alpha(alpha)
    classes = check_classes(classes)
    check_flag("include_top", include_top)
    pooling = check_choice("pooling", pooling, (None, "avg", "max"))
    pen = _Pen(
        check_resolution(rho, resolution),
        check_channels(channels),
        variant.pop("activation", "relu6"),
        variant.pop("output_stride", None),
    )
    network = NETWORKS[name]

    block, wide = 0, None
    for row in vary(network.rows, **variant):
        if isinstance(row, Conv):
            scale = alpha if row.shrinks else max(1.0, alpha)
            _conv(pen, row, network.round_channels(row.channels * scale))
            continue
        channels = network.round_channels(row.channels * alpha)
        for repeat in range(row.repeats):
            block += 1
            stride = row.stride if repeat == 0 else 1
            if isinstance(row, Separable):
                _separable(pen, f"block_{block}", row, stride, channels)
            else:
                wide = _bottleneck(pen, f"block_{block}", row, stride, channels, wide)

    if include_top:
        pen.write("pool", "avg_pool", pen.channels, 1)
        pen.write("dropout", "dropout", pen.channels, 1)
        pen.write("logits", "dense", classes, 1)
    elif pooling:
        pen.write("pool", f"{pooling}_pool", pen.channels, 1)
    return tuple(pen.layers)
