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
    from keras_mobilenets.data import check_data as check_data
    from keras_mobilenets.data import load_data as load_data
    from keras_mobilenets.deploy import fuse as fuse
    from keras_mobilenets.deploy import split as split
    from keras_mobilenets.errors import ExportFailed as ExportFailed
    from keras_mobilenets.errors import SearchStopped as SearchStopped
    from keras_mobilenets.errors import TrainingDiverged as TrainingDiverged
    from keras_mobilenets.errors import TrainingInterrupted as TrainingInterrupted
    from keras_mobilenets.errors import UsageError as UsageError
    from keras_mobilenets.errors import WorkerLost as WorkerLost
    from keras_mobilenets.inference import benchmark as benchmark
    from keras_mobilenets.inference import evaluate as evaluate
    from keras_mobilenets.inference import export as export
    from keras_mobilenets.inference import fine_tune_quantized as fine_tune_quantized
    from keras_mobilenets.inference import predict as predict
    from keras_mobilenets.models import build as build
    from keras_mobilenets.models import copy_weights as copy_weights
    from keras_mobilenets.plots import plot_cost as plot_cost
    from keras_mobilenets.plots import plot_curves as plot_curves
    from keras_mobilenets.recipe import Recipe as Recipe
    from keras_mobilenets.recipe import recipes as recipes
    from keras_mobilenets.training import RMSprop as RMSprop
    from keras_mobilenets.training import Run as Run
    from keras_mobilenets.training import averaged_weights as averaged_weights
    from keras_mobilenets.training import check_scale as check_scale
    from keras_mobilenets.training import compile as compile
    from keras_mobilenets.training import make_strategy as make_strategy
    from keras_mobilenets.training import preflight as preflight  # type: ignore[no-redef]
    from keras_mobilenets.training import recalibrate as recalibrate
    from keras_mobilenets.training import restore_checkpoint as restore_checkpoint
    from keras_mobilenets.training import save_checkpoint as save_checkpoint
    from keras_mobilenets.training import train as train
    from keras_mobilenets.tuning.hypermodel import HyperMobileNet as HyperMobileNet
    from keras_mobilenets.tuning.results import SearchResult as SearchResult
    from keras_mobilenets.tuning.searching import search as search

__version__ = "0.1.0"

# Where each public name lives; imported when first used.
_HOME = {
    name: module
    for module, names in {
        "architecture": ("Cost", "cost", "recommend"),
        "data": ("Splits", "check_data", "load_data"),
        "deploy": ("fuse", "split"),
        "errors": (
            "ExportFailed",
            "SearchStopped",
            "TrainingDiverged",
            "TrainingInterrupted",
            "UsageError",
            "WorkerLost",
        ),
        "inference": (
            "benchmark",
            "evaluate",
            "export",
            "fine_tune_quantized",
            "predict",
        ),
        "models": ("build", "copy_weights"),
        "plots": ("plot_cost", "plot_curves"),
        "recipe": ("Recipe", "recipes"),
        "training": (
            "RMSprop",
            "Run",
            "averaged_weights",
            "check_scale",
            "compile",
            "make_strategy",
            "preflight",
            "recalibrate",
            "restore_checkpoint",
            "save_checkpoint",
            "train",
        ),
        "tuning.hypermodel": ("HyperMobileNet",),
        "tuning.results": ("SearchResult",),
        "tuning.searching": ("search",),
    }.items()
    for name in names
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
