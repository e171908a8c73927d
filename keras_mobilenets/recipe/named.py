"""The named recipes: every value of each, with where it comes from.

- [paper]     printed in Howard et al. 2017 (V1) or Sandler et al. 2018 (V2);
- [slim]      the authors' code, tensorflow/models `research/slim`;
- [garden]    tensorflow/models `official/vision` (TF Model Garden);
- [torch]     pytorch/vision `references/classification`;
- [flowers]   a published study of V2 on Flowers102;
- [keras]     keras.io's guide "Transfer learning & fine-tuning";
- [tutorial]  tensorflow.org's tutorial "Transfer learning and fine-tuning" (V2);
- [our choice] none of them says; the reason follows.
"""

from __future__ import annotations

import types
from collections.abc import Mapping
from typing import Any

from keras_mobilenets.architecture.arguments import check_choice
from keras_mobilenets.recipe.record import FIELDS, Recipe


def _recipe(
    name: str, summary: str, measured: str, **values: tuple[Any, str]
) -> Recipe:
    """A recipe from field=(value, source) pairs; every field must be there."""
    return Recipe(
        name,
        summary,
        **{field: value for field, (value, _) in values.items()},
        measured=measured,
        sources={field: source for field, (_, source) in values.items()},
    )


def _derived(
    base: Recipe, name: str, summary: str, measured: str, **values: tuple[Any, str]
) -> Recipe:
    """A recipe that differs from `base` in the given fields only."""
    merged = {field: (getattr(base, field), base.sources[field]) for field in FIELDS}
    return _recipe(name, summary, measured, **{**merged, **values})


_SCRIPT = "[slim] train_image_classifier.py"
_README = "[slim] nets/mobilenet/README.md"
_INCEPTION = "[slim] preprocessing/inception_preprocessing.py"
_V2_PAPER = "[paper] V2 section 6.1"
_GARDEN = "[garden] configs/image_classification.py"
_GARDEN_YAML = "[garden] configs/experiments/image_classification"
_TORCH = "[torch] references/classification/README.md"

_ONE_PACE = "[our choice] its rate was chosen for gradients that are not stale"

_NOT_RUN = "Nothing yet: ImageNet takes weeks of GPU time."
_SIX_STEPS = (
    "Not run to its end here. Six steps (rate 1e-5, no dropout, no averages) are the "
    "authors' code's: `python -m pytest tests/training -k authors`."
)

SLIM_V2 = _recipe(
    "slim_v2",
    "The authors' README command for V2; it claims 72.0 % at alpha 1, 224 px.",
    _SIX_STEPS,
    optimizer=("rmsprop", f"{_SCRIPT} default; {_V2_PAPER}"),
    learning_rate=(0.045, f"{_README}; {_V2_PAPER}"),
    scale_learning_rate=(True, f"{_README}: 0.045 * NUM_GPUS, clones are averaged"),
    asynchronous_workers=(16, f"{_V2_PAPER}: 0.045 for 16 of them"),
    decay_rate=(0.98, f"{_README}; {_V2_PAPER}"),
    decay_epochs=(2.5, f"{_README}: 2.5 / NUM_GPUS of slim's per-clone epochs"),
    staircase=(True, _SCRIPT),
    warmup_epochs=(0.0, f"{_SCRIPT}: none"),
    rmsprop_decay=(0.9, f"{_SCRIPT} rmsprop_decay; {_V2_PAPER}"),
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
    synchronize_batch_norm=(
        False,
        "[slim] deployment/model_deploy.py: each clone has its own; the moving ones "
        "are the first clone's there, the mean of all here",
    ),
    kernel_stddev=(0.09, "[slim] mobilenet.training_scope"),
    batch_size=(96, f"{_README}; {_V2_PAPER}"),
    epochs=(412, f"{_README}: 5.5 M steps * 96 / 1,281,167 images"),
    early_stopping_patience=(None, f"{_SCRIPT}: none"),
    crop_area=((0.05, 1.0), _INCEPTION),
    crop_aspect=((0.75, 1.33), _INCEPTION),
    crop_min_covered=(0.1, _INCEPTION),
    flip=(True, _INCEPTION),
    exif_orientation=(False, f"{_INCEPTION}: tf.image.decode_jpeg does not turn it"),
    color=("fast", f"{_INCEPTION}: fast_mode is the default"),
    resize=("tf1", f"{_INCEPTION}: tf.image.resize_bilinear of TF1"),
    eval_crop=(0.875, f"{_INCEPTION}: of each side"),
    freeze=(None, f"{_SCRIPT} trainable_scopes: all"),
    head_epochs=(0, f"{_SCRIPT}: from scratch"),
    body_learning_rate=(1.0, f"{_SCRIPT}: one rate for all"),
    batch_norm=("train", f"{_SCRIPT}: is_training"),
)

PAPER_V2 = _derived(
    SLIM_V2,
    "paper_v2",
    "V2 as printed: x0.98 every epoch. What the paper leaves open is slim's.",
    _NOT_RUN,
    scale_learning_rate=(False, f"{_V2_PAPER}: 16 asynchronous workers, 0.045"),
    decay_epochs=(1.0, _V2_PAPER),
    label_smoothing=(0.0, "[paper] V2 names none"),
    synchronize_batch_norm=(
        False,
        f"{_V2_PAPER}: asynchronous workers, each with its own batch",
    ),
    ema_decay=(None, "[paper] V2 names none"),
)

SLIM_V1 = _derived(
    SLIM_V2,
    "slim_v1",
    "V1's network constants in slim, trained by slim's general script.",
    _SIX_STEPS,
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
    _NOT_RUN,
    learning_rate=(0.045, f"{_V2_PAPER}, which says it follows V1"),
    scale_learning_rate=(False, "[paper] V1 trains asynchronously"),
    decay_epochs=(1.0, f"{_V2_PAPER}, which says it follows V1"),
    synchronize_batch_norm=(
        False,
        "[paper] V1 section 3.2: asynchronous workers, each with its own batch",
    ),
    rmsprop_decay=(0.9, "[paper] V1 section 3.2: as Inception V3, whose decay is 0.9"),
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
    "Nothing yet: Flowers102 is a download.",
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
    synchronize_batch_norm=(
        False,
        "[our choice] one device there; several as paper_v2 has them",
    ),
    exif_orientation=(True, "[our choice] your own photos are seen as they were taken"),
)

MODEL_GARDEN_V2 = _derived(
    SLIM_V2,
    "model_garden_v2",
    "TF Model Garden's V2: 72.7 % on TPU, 71.0 % on GPU.",
    _NOT_RUN,
    optimizer=("rmsprop", _GARDEN),
    learning_rate=(0.008, f"{_GARDEN}: 0.008 for every 128 images"),
    scale_learning_rate=(True, f"{_GARDEN}: 0.008 * batch / 128"),
    asynchronous_workers=(1, _ONE_PACE),
    decay_rate=(0.96, f"{_GARDEN_YAML}/imagenet_mobilenetv2_gpu.yaml"),
    decay_epochs=(2.5, _GARDEN),
    staircase=(True, _GARDEN),
    warmup_epochs=(5.0, _GARDEN),
    rmsprop_decay=(0.9, _GARDEN),
    momentum=(0.9, _GARDEN),
    epsilon=(0.002, _GARDEN),
    initial_accumulator=(0.0, "[garden] tf_keras RMSprop's slots"),
    weight_decay=(2e-5, f"{_GARDEN}: Keras L2 of 1e-5, without slim's half"),
    label_smoothing=(0.1, _GARDEN),
    background_class=(True, f"{_GARDEN}: 1001 classes"),
    dropout=(0.2, _GARDEN),
    ema_decay=(None, f"{_GARDEN}: not used for MobileNet"),
    batch_norm_momentum=(0.997, _GARDEN),
    synchronize_batch_norm=(False, f"{_GARDEN}: use_sync_bn=False"),
    batch_size=(128, f"{_GARDEN}: the unit of the learning rate"),
    epochs=(500, _GARDEN),
    crop_area=((0.08, 1.0), "[garden] vision/ops/preprocess_ops.py"),
    crop_aspect=((0.75, 1.33), "[garden] vision/ops/preprocess_ops.py"),
    exif_orientation=(False, "[garden] vision/ops/preprocess_ops.py: decode_jpeg"),
    color=(None, "[garden] dataloaders/classification_input.py: none by default"),
    resize=("half_pixel", "[garden] TF2's tf.image.resize"),
)

MODEL_GARDEN_V1 = _derived(
    MODEL_GARDEN_V2,
    "model_garden_v1",
    "TF Model Garden's V1: 72.3 % on TPU.",
    _NOT_RUN,
    decay_rate=(0.94, f"{_GARDEN_YAML}/imagenet_mobilenetv1_tpu.yaml"),
)

TORCHVISION_V2 = _derived(
    SLIM_V2,
    "torchvision_v2",
    "The command behind torchvision's first V2 weights: SGD, 71.9 %.",
    _NOT_RUN,
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
    synchronize_batch_norm=(
        False,
        "[torch] references/classification/train.py: --sync-bn is off",
    ),
    kernel_stddev=(0.09, "[our choice] torch's Kaiming fan-out is not offered"),
    batch_size=(32, "[torch] train.py default, a GPU"),
    epochs=(300, _TORCH),
    crop_area=((0.08, 1.0), "[torch] RandomResizedCrop"),
    crop_aspect=((0.75, 4 / 3), "[torch] RandomResizedCrop"),
    crop_min_covered=(0.08, "[torch] RandomResizedCrop's lower area"),
    exif_orientation=(False, "[torch] datasets/folder.py: PIL's open does not turn it"),
    color=(None, "[torch] presets.py: none"),
    resize=("half_pixel", "[torch] nearest to its antialiased bilinear"),
)

QUICK = _derived(
    PAPER_V2,
    "quick",
    "A few hundred steps on a small set, on a laptop: see it learn in a minute.",
    "To its end, V2 0.35 at 48 px on two CPU cores: 98.89 % of the digits' 180 test "
    "images, by `keras-mobilenets train`.",
    learning_rate=(0.045, "[our choice] the papers' value holds at batch 32 too"),
    asynchronous_workers=(1, "[our choice] two at 0.045 lose two points on the digits"),
    decay_rate=(0.02, "[our choice] the rate falls fiftyfold over the run"),
    decay_epochs=(15.0, "[our choice] the length of the run"),
    staircase=(False, "[our choice] smooth over a short run"),
    warmup_epochs=(2.0, "[our choice] 0.045 at once costs a point on the digits"),
    ema_decay=(0.98, "[our choice] an average over about an epoch"),
    background_class=(False, "[our choice] small sets have none"),
    batch_norm_momentum=(0.9, "[our choice] slim's 0.997 needs thousands of steps"),
    synchronize_batch_norm=(
        True,
        "[our choice] the same steps on any number of devices",
    ),
    batch_size=(32, "[our choice] more steps from little data"),
    epochs=(15, "[our choice] a minute on two CPU cores"),
    crop_area=(None, "[our choice] small images are shown whole"),
    flip=(False, "[our choice] a mirrored digit is another sign"),
    exif_orientation=(True, "[our choice] your own photos are seen as they were taken"),
    color=(None, "[our choice] grey images have no colour"),
    resize=("half_pixel", "[our choice] TF1's kernel shifts small images"),
    eval_crop=(None, "[our choice] small images are shown whole"),
)

_FLOWERS_V1 = "[slim] scripts/finetune_inception_v1_on_flowers.sh"
_FLOWERS_V3 = "[slim] scripts/finetune_inception_v3_on_flowers.sh"
_KERAS_GUIDE = "[keras] guides/transfer_learning.py"
_TUTORIAL = "[tutorial]"

FINETUNE = _derived(
    SLIM_V2,
    "finetune",
    "From pretrained weights to a few hundred images of one's own.",
    "The authors' V1 0.25 at 128 px to 22 photographs, crops of 20 each: 81.5 % of the "
    "test crops, 77.6 % by the classifier alone, by `python -m "
    "experiments.finetuning_photos`. V2 0.35 at 48 px, from five classes of "
    "Fashion-MNIST to five others, 20 images each, 40 steps: 61.1 %, from scratch 31.9 "
    "%, or 66.9 % with batch norm recalibrated, in the mean of three seeds, by `python "
    "-m experiments.finetuning`.",
    learning_rate=(0.01, f"{_FLOWERS_V1}, {_FLOWERS_V3}: of the new classifier"),
    rmsprop_decay=(0.9, f"{_TUTORIAL}: Keras' RMSprop"),
    momentum=(0.0, f"{_TUTORIAL}: Keras' RMSprop"),
    epsilon=(
        1e-7,
        f"{_TUTORIAL}: Keras' RMSprop. A step is then as large as the rate, whatever "
        "the scale of the weights; slim's 1.0 ruins trained networks at 0.1 of 0.045 "
        "and more (experiments/finetuning_photos.py)",
    ),
    initial_accumulator=(0.0, f"{_TUTORIAL}: Keras' RMSprop"),
    weight_decay=(
        0.0,
        f"{_TUTORIAL}: none; with that epsilon it is a whole step for idle weights",
    ),
    scale_learning_rate=(
        False,
        "[our choice] few steps on few images: a higher rate has no time to settle",
    ),
    asynchronous_workers=(1, _ONE_PACE),
    decay_rate=(0.1, "[our choice] slim's is fixed; few images want a calm end"),
    decay_epochs=(30.0, "[our choice] the length of the run"),
    staircase=(False, "[our choice] smooth over a short run"),
    label_smoothing=(0.0, f"{_FLOWERS_V1}: {_SCRIPT}'s default"),
    background_class=(False, "[our choice] one's own images have none"),
    dropout=(0.2, f"{_TUTORIAL}; [slim] training_scope, dropout_keep_prob 0.8"),
    ema_decay=(
        None,
        "[our choice] a few hundred steps, and early stopping keeps the best epoch",
    ),
    batch_norm_momentum=(
        0.9,
        "[our choice] used with batch_norm=train only, where steps are few",
    ),
    synchronize_batch_norm=(False, "[our choice] frozen, there is nothing to share"),
    batch_size=(32, f"{_FLOWERS_V1}, {_FLOWERS_V3}"),
    epochs=(30, "[our choice] the classifier's, and twice as many of all layers"),
    early_stopping_patience=(10, "[our choice] a third of the run, from its switch on"),
    crop_area=(
        None,
        "[our choice] so that the classifier trains on features computed once",
    ),
    flip=(
        False,
        "[our choice] as crop_area; say yes where left and right are alike",
    ),
    exif_orientation=(True, "[our choice] your own photos are seen as they were taken"),
    color=(None, "[our choice] as crop_area"),
    eval_crop=(None, "[our choice] the whole image, as in training"),
    freeze=(None, f"{_FLOWERS_V1}, {_FLOWERS_V3}: all layers, after the new one"),
    head_epochs=(
        10,
        f"{_TUTORIAL} 10; {_FLOWERS_V3}: 1,000 steps of 32 of 3,320 images are 9.6",
    ),
    body_learning_rate=(
        0.01,
        f"{_FLOWERS_V1}, {_FLOWERS_V3}: 0.0001 after 0.01; {_KERAS_GUIDE}: 1e-5 after "
        "1e-3",
    ),
    batch_norm=("frozen", f"{_KERAS_GUIDE}; {_TUTORIAL}: in inference mode"),
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
            FINETUNE,
        )
    }
)


def get_recipe(recipe: str | Recipe, /, **overrides: Any) -> Recipe:
    """The named recipe (or the one given), with fields overridden.

    >>> get_recipe("slim_v2", epochs=5).epochs
    5
    """
    if not isinstance(recipe, Recipe):
        check_choice("recipe", recipe, recipes)
        recipe = recipes[recipe]
    return recipe.replace(**overrides)
