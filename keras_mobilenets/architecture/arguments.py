"""Checks of the arguments that `build`, `cost` and the command line share.

Every check returns the accepted value or raises a ValueError that names the
argument, what was received, what is accepted and the fix.
"""

from __future__ import annotations

import difflib
import math
import numbers
from collections.abc import Iterable
from typing import Any

from keras_mobilenets.architecture.shapes import (
    TEXT,
    Resolution,
    as_resolution,
    from_plain,
    sides,
)
from keras_mobilenets.architecture.tables import NETWORKS
from keras_mobilenets.errors import UsageError

NATIVE_RESOLUTION = 224  # pixels at rho = 1, both papers
MIN_RESOLUTION = 32  # the networks halve their input five times

# Far above any use, and low enough for every product of them to be exact.
MAX_RESOLUTION = 32768
MAX_ALPHA = 100
MAX_EXPANSION = 100
MAX_CLASSES = 10**9
MAX_INTEGER = 2**63 - 1  # of any whole number: TensorFlow and NumPy count in int64

CHANNELS = (1, 3, 4)  # grey, RGB, RGBA

LONGEST_SHOWN = 500  # letters of a value in a message

COMMON_VARIANTS = ("output_stride", "activation")
VARIANTS = {
    "mobilenet_v1": ("shallow", "separable", *COMMON_VARIANTS),
    "mobilenet_v2": ("expansion", "linear_bottleneck", "shortcut", *COMMON_VARIANTS),
}

# What other libraries call our arguments, or call by the name of our arguments.
FOREIGN = {
    "depth_multiplier": "use alpha (width) or rho (resolution)",
    "width_mult": "use alpha",
    "width_multiplier": "use alpha",
    "widen_factor": "use alpha",
    "input_shape": "use resolution and channels: input_shape=(96, 160, 3) is "
    "resolution=(96, 160), channels=3",
    "input_size": "use resolution (pixels of a side, or (height, width))",
    "image_size": "use resolution (pixels of a side, or (height, width))",
    "in_chans": "use channels (1, 3 or 4)",
    "in_channels": "use channels (1, 3 or 4)",
    "input_tensor": "call the model on your tensor instead: build(...)(tensor)",
    "num_classes": "use classes",
    "n_classes": "use classes",
    "dropout_rate": "use dropout",
    "pretrained": 'use weights="imagenet"',
    "model_name": "use name",
}


def shown(value: Any) -> str:
    """What was received, for a message: its repr, cut where it is long.

    >>> shown(10**5000)
    'a number beyond what is printed'
    """
    try:
        text = repr(value)
    except Exception:  # a number of more than 4,300 digits, or a repr at fault
        number = isinstance(value, numbers.Number)
        return "a number beyond what is printed" if number else f"a {type(value)}"
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}..."


def suggest(word: Any, known: Iterable[str]) -> str:
    """'; did you mean X?' where one of `known` is near, else an empty string."""
    if not isinstance(word, str) or len(word) > LONGEST_SHOWN:
        return ""
    near = difflib.get_close_matches(word.lower(), list(known), n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else ""


def check_choice(argument: str, value: Any, accepted: Iterable[Any]) -> Any:
    """`value`, if it is one of `accepted`."""
    accepted = tuple(accepted)
    # Only text and plain numbers are compared: an array would answer with an array.
    comparable = isinstance(value, (str, numbers.Real)) and not isinstance(value, bool)
    for choice in accepted:
        if value is choice or (comparable and value == choice):
            return choice
    listed = ", ".join(repr(a) for a in accepted)
    hint = suggest(value, [a for a in accepted if isinstance(a, str)])
    raise UsageError(f"{argument} must be one of {listed}; got {shown(value)}{hint}")


def check_name(name: Any) -> str:
    """A known network name; a near miss is answered with the nearest one."""
    return check_choice("name", name, NETWORKS)


def _is_real(value: Any) -> bool:
    if not isinstance(value, numbers.Real) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number or a fraction beyond any float
        return False


def check_number(
    argument: str,
    value: Any,
    *,
    low: float,
    open_low: bool = False,
    high: float = math.inf,
    open_high: bool = False,
    fix: str = "",
) -> float:
    """A finite real number from `low` (`open_low`: above it) to `high` (below it)."""
    bound = f"above {low:g}" if open_low else f"of at least {low:g}"
    if high < math.inf:
        bound += f" and below {high:g}" if open_high else f" and at most {high:g}"
    within = _is_real(value) and low <= value <= high
    if not within or (open_low and value == low) or (open_high and value == high):
        raise UsageError(
            f"{argument} must be a finite number {bound}; got {shown(value)}"
            + (f"; {fix}" if fix else "")
        )
    return float(value)


def check_integer(
    argument: str, value: Any, *, low: int, high: float = MAX_INTEGER, fix: str = ""
) -> int:
    """A whole number from `low` to `high`."""
    high = min(high, MAX_INTEGER)
    if not _is_real(value) or value != int(value) or not low <= value <= high:
        number: Any = value if isinstance(value, numbers.Real) else 0
        too_high = number > high
        bound = f"of at least {low}"
        if high < MAX_INTEGER or too_high:
            bound += f" and at most {high}"
        raise UsageError(
            f"{argument} must be a whole number {bound}; got {shown(value)}"
            + (f"; {fix}" if fix else "")
        )
    return int(value)


def check_flag(argument: str, value: Any) -> bool:
    """True or False, nothing that merely looks like one."""
    if not isinstance(value, bool):
        raise UsageError(f"{argument} must be True or False; got {shown(value)}")
    return value


def check_alpha(alpha: Any) -> float:
    """The width multiplier: above 0; the papers' are 0.25 to 1.4."""
    return check_number(
        "alpha",
        alpha,
        low=0,
        open_low=True,
        high=MAX_ALPHA,
        fix="the papers use 0.25 to 1.0 (V1) and 0.35 to 1.4 (V2)",
    )


def check_resolution(rho: Any, resolution: Any) -> Resolution:
    """The input size in pixels, from at most one of `rho` and `resolution`.

    A number for a square; anything else is (height, width), or "HEIGHTxWIDTH". `rho`
    is a multiple of 224, and so of squares only.

    >>> check_resolution(0.857, None), check_resolution(None, None)
    (192, 224)
    >>> check_resolution(None, (96, 160)), check_resolution(None, "96x160")
    ((96, 160), (96, 160))
    """
    if rho is not None and resolution is not None:
        raise UsageError(
            f"give rho or resolution, not both; got rho={shown(rho)} and "
            f"resolution={shown(resolution)} (rho = resolution / {NATIVE_RESOLUTION})"
        )
    if rho is None and resolution is None:
        return NATIVE_RESOLUTION
    if rho is not None:
        value = check_number(
            "rho",
            rho,
            low=0,
            open_low=True,
            high=MAX_RESOLUTION / NATIVE_RESOLUTION,
            fix=f"rho is resolution / {NATIVE_RESOLUTION}, such as 0.857 for 192",
        )
        pixels = round(value * NATIVE_RESOLUTION)
        if pixels < MIN_RESOLUTION:
            raise UsageError(
                f"rho must be at least {MIN_RESOLUTION / NATIVE_RESOLUTION:.3f} "
                f"({MIN_RESOLUTION} pixels; the network halves its input five "
                f"times); got {rho!r}, which is {pixels} pixels"
            )
        return pixels
    pair = resolution
    if isinstance(resolution, str) and TEXT.fullmatch(resolution):
        pair = sides(from_plain(resolution))
    if not isinstance(pair, (tuple, list)):
        return _check_side(
            resolution,
            "it is in pixels, of a side or (height, width), and the network halves it "
            "five times",
        )
    if len(pair) != 2:
        more = ""
        if len(pair) == 3:
            more = ": the third is an argument of its own, channels"
        raise UsageError(
            f"resolution must be a whole number of at least {MIN_RESOLUTION} pixels, "
            f"or (height, width), two of them; got {shown(resolution)}{more}"
        )
    fix = f"{shown(resolution)} is (height, width) in pixels, halved five times each"
    height, width = (_check_side(side, fix) for side in pair)
    return as_resolution(height, width)


def rho_of(resolution: Resolution) -> float | None:
    """The multiple of 224 that a square is; None for any other shape."""
    return None if isinstance(resolution, tuple) else resolution / NATIVE_RESOLUTION


def _check_side(value: Any, fix: str) -> int:
    return check_integer(
        "resolution", value, low=MIN_RESOLUTION, high=MAX_RESOLUTION, fix=fix
    )


def check_channels(channels: Any) -> int:
    """The channels of the input: 1 (grey), 3 (RGB) or 4 (RGB and alpha)."""
    return check_choice("channels", channels, CHANNELS)


def check_classes(classes: Any) -> int:
    """The number of classes: a whole number of at least 1."""
    return check_integer(
        "classes",
        classes,
        low=1,
        high=MAX_CLASSES,
        fix="use include_top=False for features",
    )


def check_known(where: str, given: Iterable[str], accepted: Iterable[str]) -> None:
    """Reject argument names that are not in `accepted`."""
    accepted = tuple(dict.fromkeys(accepted))
    for argument in given:
        if argument in accepted:
            continue
        if argument in FOREIGN:
            raise UsageError(
                f"{where} has no argument {argument!r}; {FOREIGN[argument]}"
            )
        raise UsageError(
            f"{where} has no argument {argument!r}{suggest(argument, accepted)} "
            f"(accepted: {', '.join(accepted)})"
        )


def check_variant(name: str, variant: dict[str, Any]) -> dict[str, Any]:
    """The variations of network `name`, each of the right type."""
    other = next(n for n in VARIANTS if n != name)
    for argument in variant:
        if argument in VARIANTS[other] and argument not in VARIANTS[name]:
            raise UsageError(
                f"{argument} is a variation of {other}; got name={name!r}, whose "
                f"variations are {', '.join(VARIANTS[name])}"
            )
    checks = {
        "shallow": lambda v: check_flag("shallow", v),
        "separable": lambda v: check_flag("separable", v),
        "linear_bottleneck": lambda v: check_flag("linear_bottleneck", v),
        "expansion": lambda v: check_number("expansion", v, low=1, high=MAX_EXPANSION),
        "shortcut": lambda v: check_choice(
            "shortcut", v, ("bottleneck", "expansion", "none")
        ),
        "activation": lambda v: check_choice("activation", v, ("relu6", "relu")),
        "output_stride": lambda v: check_choice(
            "output_stride", v, (None, 2, 4, 8, 16, 32)
        ),
    }
    return {argument: checks[argument](value) for argument, value in variant.items()}
