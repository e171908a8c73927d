"""MobileNetV1 and V2 in Keras: exact networks, the papers' recipe, cost, search.

`import keras_mobilenets` does not import TensorFlow; the first use of a name
that needs it does (PEP 562).

>>> import keras_mobilenets as km
>>> km.cost("mobilenet_v2", alpha=0.5, resolution=160).macs
50184000
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from keras_mobilenets.architecture import Cost as Cost
    from keras_mobilenets.architecture import cost as cost
    from keras_mobilenets.architecture import recommend as recommend
    from keras_mobilenets.data import Splits as Splits
    from keras_mobilenets.data import load_data as load_data
    from keras_mobilenets.models import build as build
    from keras_mobilenets.recipe import Recipe as Recipe
    from keras_mobilenets.recipe import recipes as recipes

__version__ = "0.1.0"

_HOME = {
    "Cost": "architecture",
    "Recipe": "recipe",
    "Splits": "data",
    "build": "models",
    "cost": "architecture",
    "load_data": "data",
    "recipes": "recipe",
    "recommend": "architecture",
}

__all__ = ["__version__", *_HOME]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(_HOME))
