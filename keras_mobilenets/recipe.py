"""Training recipes: every constant of every published run, with its source.

A `Recipe` is flat and frozen. `recipes["slim_v2"].sources["epsilon"]` says where
a value comes from:

- [paper]     printed in Howard et al. 2017 (V1) or Sandler et al. 2018 (V2);
- [slim]      the authors' code, tensorflow/models `research/slim`;
- [garden]    tensorflow/models `official/vision` (TF Model Garden);
- [torch]     pytorch/vision `references/classification`;
- [flowers]   a published study of V2 on Flowers102;
- [our choice] none of them says; the reason follows.

Pure Python: importing this module does not import TensorFlow.
"""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Mapping
from typing import Any

from keras_mobilenets.architecture.arguments import (
    check_choice,
    check_flag,
    check_integer,
    check_known,
    check_number,
)
from keras_mobilenets.errors import UsageError


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Every setting of a training run that is not the network, data or machine.

    Values that are None switch the thing off. Times are in epochs of the data.
    """

    name: str
    summary: str

    # Optimizer: TF1 RMSProp semantics (`keras_mobilenets.RMSprop`) or SGD.
    optimizer: str  # "rmsprop" or "sgd"
    learning_rate: float  # of one replica; see scale_learning_rate
    scale_learning_rate: bool  # multiply by the number of replicas
    asynchronous_workers: int  # the rate is divided where there are more, in proportion
    decay_rate: float  # factor of the learning rate every decay_epochs
    decay_epochs: float
    staircase: bool  # in steps rather than continuously
    warmup_epochs: float  # linear from 0
    rho: float  # decay of RMSProp's mean square; ignored by SGD
    momentum: float
    epsilon: float  # inside RMSProp's square root; ignored by SGD
    initial_accumulator: float  # where RMSProp's mean square starts

    # Regularisation
    weight_decay: float  # w in w / 2 * sum(kernel ** 2), part of the loss
    weight_decay_scope: str  # "kernels": not depthwise, bias or norm; or "all"
    label_smoothing: float
    background_class: bool  # class 0 means none of the classes
    dropout: float  # rate before the classifier
    ema_decay: float | None  # moving average of all variables

    # Network constants that belong to training
    batch_norm_momentum: float
    synchronize_batch_norm: bool  # batch statistics of all replicas, or of each
    kernel_stddev: float  # truncated normal initialiser

    # Run
    batch_size: int  # of one replica
    epochs: int
    early_stopping_patience: int | None  # epochs without a better validation loss

    # Preprocessing; images end in [-1, 1]
    exif_orientation: bool  # turn JPEG files as their EXIF orientation says
    crop_area: tuple[float, float] | None  # share of the image a crop may take
    crop_aspect: tuple[float, float]  # width / height of a crop
    crop_min_covered: float  # share of the whole image a crop must cover
    flip: bool
    color: str | None  # "fast": brightness, saturation; "full": hue, contrast too
    resize: str  # "tf1": bilinear without half-pixel centres; or "half_pixel"
    eval_crop: float | None  # central share of each side

    sources: Mapping[str, str] = dataclasses.field(repr=False, compare=False)

    def replace(self, **overrides: Any) -> Recipe:
        """This recipe with some fields changed; their source becomes [yours].

        ValueError names a field that does not exist or a value that cannot be.

        >>> recipes["slim_v2"].replace(epochs=10).sources["epochs"]
        '[yours]'
        """
        check_known(f"recipe {self.name!r}", overrides, FIELDS)
        sources = {**self.sources, **dict.fromkeys(overrides, "[yours]")}
        return _checked(dataclasses.replace(self, **overrides, sources=sources))

    def as_dict(self) -> dict[str, Any]:
        """Field to value, ready for JSON."""
        return {field: getattr(self, field) for field in FIELDS}


FIELDS = tuple(
    field.name
    for field in dataclasses.fields(Recipe)
    if field.name not in ("name", "summary", "sources")
)


def _checked(recipe: Recipe) -> Recipe:
    """The recipe, with every value of the right kind, or a ValueError by name."""
    check_choice("optimizer", recipe.optimizer, ("rmsprop", "sgd"))
    check_choice("weight_decay_scope", recipe.weight_decay_scope, ("kernels", "all"))
    check_choice("color", recipe.color, (None, "fast", "full"))
    check_choice("resize", recipe.resize, ("tf1", "half_pixel"))
    real: dict[str, tuple[float, float | None]] = {  # field: lowest, highest
        "decay_rate": (0, 1),
        "warmup_epochs": (0, None),
        "rho": (0, 1),
        "momentum": (0, 1),
        "epsilon": (0, None),
        "initial_accumulator": (0, None),
        "weight_decay": (0, None),
        "label_smoothing": (0, 1),
        "dropout": (0, 1),
        "batch_norm_momentum": (0, 1),
        "crop_min_covered": (0, 1),
    }
    below_one = {
        "rho", "momentum", "label_smoothing", "dropout", "batch_norm_momentum",
    }  # fmt: skip
    changes: dict[str, Any] = {}
    for field, (low, high) in real.items():
        value = check_number(field, getattr(recipe, field), low=low)
        if high is not None and (value > high or (field in below_one and value == 1)):
            bound = "below" if field in below_one else "at most"
            raise UsageError(f"{field} must be {bound} {high}; got {value!r}")
        changes[field] = value
    for field in ("learning_rate", "decay_epochs", "kernel_stddev"):
        changes[field] = check_number(
            field, getattr(recipe, field), low=0, open_low=True
        )
    for field in (
        "scale_learning_rate", "staircase", "background_class", "flip",
        "synchronize_batch_norm", "exif_orientation",
    ):  # fmt: skip
        check_flag(field, getattr(recipe, field))
    for field in ("batch_size", "epochs", "asynchronous_workers"):
        changes[field] = check_integer(field, getattr(recipe, field), low=1)
    if recipe.early_stopping_patience is not None:
        changes["early_stopping_patience"] = check_integer(
            "early_stopping_patience", recipe.early_stopping_patience, low=1
        )
    for field in ("ema_decay", "eval_crop"):
        value = getattr(recipe, field)
        if value is None:
            continue
        value = check_number(field, value, low=0, open_low=True)
        if value > 1 or (field == "ema_decay" and value == 1):
            bound = "below" if field == "ema_decay" else "at most"
            raise UsageError(f"{field} must be None or {bound} 1; got {value!r}")
        changes[field] = value
    for field in ("crop_area", "crop_aspect"):
        value = getattr(recipe, field)
        if value is None and field == "crop_area":
            continue
        if not isinstance(value, (tuple, list)) or len(value) != 2:
            raise UsageError(f"{field} must be a pair (low, high); got {value!r}")
        low, high = (check_number(field, v, low=0, open_low=True) for v in value)
        if low > high or (field == "crop_area" and high > 1):
            raise UsageError(
                f"{field} must be low <= high"
                + (" <= 1" if field == "crop_area" else "")
                + f"; got {value!r}"
            )
        changes[field] = (low, high)
    if recipe.crop_area is not None and recipe.crop_min_covered > recipe.crop_area[1]:
        raise UsageError(
            f"crop_min_covered must be at most crop_area's upper end "
            f"{recipe.crop_area[1]:g}, or no crop fits; got {recipe.crop_min_covered!r}"
        )
    if recipe.optimizer == "rmsprop" and recipe.epsilon == 0:
        if recipe.initial_accumulator == 0:
            raise UsageError(
                "epsilon must be above 0 where initial_accumulator is 0 (the first "
                "update would divide by zero); got epsilon=0.0"
            )
    return dataclasses.replace(recipe, **changes)


def _recipe(name: str, summary: str, **values: tuple[Any, str]) -> Recipe:
    """A recipe from field=(value, source) pairs; every field must be there."""
    return _checked(
        Recipe(
            name,
            summary,
            **{field: value for field, (value, _) in values.items()},
            sources={field: source for field, (_, source) in values.items()},
        )
    )


def _derived(base: Recipe, name: str, summary: str, **values: tuple[Any, str]):
    """A recipe that differs from `base` in the given fields only."""
    merged = {field: (getattr(base, field), base.sources[field]) for field in FIELDS}
    return _recipe(name, summary, **{**merged, **values})


_SCRIPT = "[slim] train_image_classifier.py"
_README = "[slim] nets/mobilenet/README.md"
_INCEPTION = "[slim] preprocessing/inception_preprocessing.py"
_V2_PAPER = "[paper] V2 section 6.1"
_GARDEN = "[garden] configs/image_classification.py"
_GARDEN_YAML = "[garden] configs/experiments/image_classification"
_TORCH = "[torch] references/classification/README.md"

_SAME_STEPS = (
    "[our choice] the same steps on any number of devices; the batches of slim's, "
    "Model Garden's and torchvision's replicas have each their own statistics"
)
_ONE_PACE = "[our choice] its rate was chosen for gradients that are not stale"

SLIM_V2 = _recipe(
    "slim_v2",
    "The authors' README command for V2; it claims 72.0 % at alpha 1, 224 px.",
    optimizer=("rmsprop", f"{_SCRIPT} default; {_V2_PAPER}"),
    learning_rate=(0.045, f"{_README}; {_V2_PAPER}"),
    scale_learning_rate=(True, f"{_README}: 0.045 * NUM_GPUS, clones are averaged"),
    asynchronous_workers=(16, f"{_V2_PAPER}: 0.045 for 16 of them"),
    decay_rate=(0.98, f"{_README}; {_V2_PAPER}"),
    decay_epochs=(2.5, f"{_README}: 2.5 / NUM_GPUS of slim's per-clone epochs"),
    staircase=(True, _SCRIPT),
    warmup_epochs=(0.0, f"{_SCRIPT}: none"),
    rho=(0.9, f"{_SCRIPT} rmsprop_decay; {_V2_PAPER}"),
    momentum=(0.9, f"{_SCRIPT}; {_V2_PAPER}"),
    epsilon=(1.0, f"{_SCRIPT} opt_epsilon"),
    initial_accumulator=(1.0, "[slim] tf.compat.v1.train.RMSPropOptimizer's slots"),
    weight_decay=(4e-5, f"{_SCRIPT}; {_V2_PAPER}"),
    weight_decay_scope=("kernels", "[slim] nets/mobilenet/mobilenet.py"),
    label_smoothing=(0.1, _README),
    background_class=(True, "[slim] datasets/imagenet.py: 1001 classes"),
    dropout=(0.2, "[slim] training_scope, dropout_keep_prob 0.8"),
    ema_decay=(0.9999, _README),
    batch_norm_momentum=(0.997, "[slim] mobilenet.training_scope"),
    synchronize_batch_norm=(True, _SAME_STEPS),
    kernel_stddev=(0.09, "[slim] mobilenet.training_scope"),
    batch_size=(96, f"{_README}; {_V2_PAPER}"),
    epochs=(412, f"{_README}: 5.5 M steps * 96 / 1,281,167 images"),
    early_stopping_patience=(None, f"{_SCRIPT}: none"),
    exif_orientation=(False, "[slim] tf.image.decode_jpeg, which ignores it"),
    crop_area=((0.05, 1.0), _INCEPTION),
    crop_aspect=((0.75, 1.33), _INCEPTION),
    crop_min_covered=(0.1, _INCEPTION),
    flip=(True, _INCEPTION),
    color=("fast", f"{_INCEPTION}: fast_mode is the default"),
    resize=("tf1", f"{_INCEPTION}: tf.image.resize_bilinear of TF1"),
    eval_crop=(0.875, f"{_INCEPTION}: of each side"),
)

PAPER_V2 = _derived(
    SLIM_V2,
    "paper_v2",
    "V2 as printed: x0.98 every epoch. What the paper leaves open is slim's.",
    scale_learning_rate=(False, f"{_V2_PAPER}: 16 asynchronous workers, 0.045"),
    decay_epochs=(1.0, _V2_PAPER),
    label_smoothing=(0.0, "[paper] V2 names none"),
    ema_decay=(None, "[paper] V2 names none"),
)

SLIM_V1 = _derived(
    SLIM_V2,
    "slim_v1",
    "V1's network constants in slim, trained by slim's general script.",
    label_smoothing=(0.0, f"{_SCRIPT} default; [paper] V1 section 3.2: none"),
    dropout=(0.001, "[slim] mobilenet_v1.py, dropout_keep_prob 0.999"),
    batch_norm_momentum=(0.9997, "[slim] mobilenet_v1_arg_scope"),
    kernel_stddev=(0.09, "[slim] mobilenet_v1_arg_scope"),
    weight_decay_scope=(
        "kernels",
        "[slim] mobilenet_v1.py, regularize_depthwise=False",
    ),
    learning_rate=(0.045, "[slim] nets/mobilenet_v1_train.py"),
    ema_decay=(0.9999, "[our choice] slim's V1 script has none; V2's README value"),
)

PAPER_V1 = _derived(
    SLIM_V1,
    "paper_v1",
    "V1 as printed (RMSprop, no smoothing), its schedule as V2's paper tells it.",
    learning_rate=(0.045, f"{_V2_PAPER}, which says it follows V1"),
    scale_learning_rate=(False, "[paper] V1 trains asynchronously"),
    decay_epochs=(1.0, f"{_V2_PAPER}, which says it follows V1"),
    rho=(0.9, "[paper] V1 section 3.2: as Inception V3, whose decay is 0.9"),
    epsilon=(1.0, "[paper] V1 section 3.2: as Inception V3, whose epsilon is 1.0"),
    label_smoothing=(0.0, "[paper] V1 section 3.2: none"),
    weight_decay_scope=("kernels", "[paper] V1 section 3.2: none on depthwise"),
    ema_decay=(None, "[paper] V1 names none"),
    epochs=(300, "[our choice] the paper names none; by then the rate is 1e-4"),
)

FLOWERS = _derived(
    PAPER_V2,
    "flowers",
    "V2 on Flowers102 from scratch, as a public study ran it (81 % validation).",
    scale_learning_rate=(False, "[flowers] one device"),
    asynchronous_workers=(1, _ONE_PACE),
    learning_rate=(0.045, "[flowers]"),
    decay_rate=(0.98, "[flowers]"),
    decay_epochs=(1.0, "[flowers]"),
    momentum=(0.9, "[flowers]"),
    weight_decay=(4e-5, "[flowers]"),
    background_class=(False, "[flowers] 102 classes"),
    dropout=(0.3, "[flowers]"),
    batch_size=(96, "[flowers]"),
    epochs=(120, "[flowers]"),
    early_stopping_patience=(27, "[flowers]"),
    batch_norm_momentum=(0.99, "[our choice] 1,020 images are 11 steps an epoch"),
    exif_orientation=(True, "[our choice] photographs of one's own are shown upright"),
)

MODEL_GARDEN_V2 = _derived(
    SLIM_V2,
    "model_garden_v2",
    "TF Model Garden's V2: 72.7 % on TPU, 71.0 % on GPU.",
    optimizer=("rmsprop", _GARDEN),
    learning_rate=(0.008, f"{_GARDEN}: 0.008 for every 128 images"),
    scale_learning_rate=(True, f"{_GARDEN}: 0.008 * batch / 128"),
    asynchronous_workers=(1, _ONE_PACE),
    decay_rate=(0.96, f"{_GARDEN_YAML}/imagenet_mobilenetv2_gpu.yaml"),
    decay_epochs=(2.5, _GARDEN),
    staircase=(True, _GARDEN),
    warmup_epochs=(5.0, _GARDEN),
    rho=(0.9, _GARDEN),
    momentum=(0.9, _GARDEN),
    epsilon=(0.002, _GARDEN),
    initial_accumulator=(0.0, "[garden] tf_keras RMSprop's slots"),
    weight_decay=(2e-5, f"{_GARDEN}: Keras L2 of 1e-5, without slim's half"),
    label_smoothing=(0.1, _GARDEN),
    background_class=(True, f"{_GARDEN}: 1001 classes"),
    dropout=(0.2, _GARDEN),
    ema_decay=(None, f"{_GARDEN}: not used for MobileNet"),
    batch_norm_momentum=(0.997, _GARDEN),
    batch_size=(128, f"{_GARDEN}: the unit of the learning rate"),
    epochs=(500, _GARDEN),
    exif_orientation=(False, "[garden] tf.image.decode_jpeg, which ignores it"),
    crop_area=((0.08, 1.0), "[garden] vision/ops/preprocess_ops.py"),
    crop_aspect=((0.75, 1.33), "[garden] vision/ops/preprocess_ops.py"),
    color=(None, "[garden] dataloaders/classification_input.py: none by default"),
    resize=("half_pixel", "[garden] TF2's tf.image.resize"),
)

MODEL_GARDEN_V1 = _derived(
    MODEL_GARDEN_V2,
    "model_garden_v1",
    "TF Model Garden's V1: 72.3 % on TPU.",
    decay_rate=(0.94, f"{_GARDEN_YAML}/imagenet_mobilenetv1_tpu.yaml"),
)

TORCHVISION_V2 = _derived(
    SLIM_V2,
    "torchvision_v2",
    "The command behind torchvision's first V2 weights: SGD, 71.9 %.",
    optimizer=("sgd", _TORCH),
    learning_rate=(0.045, _TORCH),
    scale_learning_rate=(False, f"{_TORCH}: 0.045 for 8 GPUs together"),
    asynchronous_workers=(1, _ONE_PACE),
    decay_rate=(0.98, _TORCH),
    decay_epochs=(1.0, _TORCH),
    momentum=(0.9, _TORCH),
    weight_decay=(4e-5, _TORCH),
    weight_decay_scope=("all", "[torch] references/classification/train.py"),
    label_smoothing=(0.0, _TORCH),
    background_class=(False, "[torch] 1000 classes"),
    dropout=(0.2, "[torch] models/mobilenetv2.py"),
    ema_decay=(None, _TORCH),
    batch_norm_momentum=(0.9, "[torch] PyTorch's 0.1 is 1 - 0.9"),
    kernel_stddev=(0.09, "[our choice] torch's Kaiming fan-out is not offered"),
    batch_size=(32, "[torch] train.py default, a GPU"),
    epochs=(300, _TORCH),
    exif_orientation=(False, "[torch] datasets/folder.py: pil_loader ignores it"),
    crop_area=((0.08, 1.0), "[torch] RandomResizedCrop"),
    crop_aspect=((0.75, 4 / 3), "[torch] RandomResizedCrop"),
    crop_min_covered=(0.08, "[torch] RandomResizedCrop's lower area"),
    color=(None, "[torch] presets.py: none"),
    resize=("half_pixel", "[torch] nearest to its antialiased bilinear"),
)

QUICK = _derived(
    PAPER_V2,
    "quick",
    "A few hundred steps on a small set, on a laptop: see it learn in a minute.",
    learning_rate=(0.045, "[our choice] the papers' value holds at batch 32 too"),
    asynchronous_workers=(1, "[our choice] two at 0.045 lose two points on the digits"),
    decay_rate=(0.02, "[our choice] the rate falls fiftyfold over the run"),
    decay_epochs=(15.0, "[our choice] the length of the run"),
    staircase=(False, "[our choice] smooth over a short run"),
    warmup_epochs=(2.0, "[our choice] 0.045 at once costs a point on the digits"),
    ema_decay=(0.98, "[our choice] an average over about an epoch"),
    background_class=(False, "[our choice] small sets have none"),
    batch_norm_momentum=(0.9, "[our choice] slim's 0.997 needs thousands of steps"),
    batch_size=(32, "[our choice] more steps from little data"),
    epochs=(15, "[our choice] a minute on two CPU cores"),
    exif_orientation=(True, "[our choice] photographs of one's own are shown upright"),
    crop_area=(None, "[our choice] small images are shown whole"),
    flip=(False, "[our choice] a mirrored digit is another sign"),
    color=(None, "[our choice] grey images have no colour"),
    resize=("half_pixel", "[our choice] TF1's kernel shifts small images"),
    eval_crop=(None, "[our choice] small images are shown whole"),
)

recipes: Mapping[str, Recipe] = types.MappingProxyType(
    {
        recipe.name: recipe
        for recipe in (
            PAPER_V1,
            PAPER_V2,
            SLIM_V1,
            SLIM_V2,
            FLOWERS,
            MODEL_GARDEN_V1,
            MODEL_GARDEN_V2,
            TORCHVISION_V2,
            QUICK,
        )
    }
)


def get_recipe(recipe: str | Recipe, **overrides: Any) -> Recipe:
    """The named recipe (or the one given), with fields overridden.

    >>> get_recipe("slim_v2", epochs=5).epochs
    5
    """
    if not isinstance(recipe, Recipe):
        check_choice("recipe", recipe, recipes)
        recipe = recipes[recipe]
    return recipe.replace(**overrides)


def difference(first: Recipe, second: Recipe) -> list[tuple[str, Any, Any, str, str]]:
    """Where two recipes differ: (field, value, value, source, source) rows."""
    return [
        (
            field,
            getattr(first, field),
            getattr(second, field),
            first.sources[field],
            second.sources[field],
        )
        for field in FIELDS
        if getattr(first, field) != getattr(second, field)
    ]
