"""`evaluate`: what a finished run's model is worth on a split, in one pass over it."""

from __future__ import annotations

import os
import pathlib
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from keras_mobilenets import storage
from keras_mobilenets.architecture.arguments import check_choice, check_flag
from keras_mobilenets.data import Splits
from keras_mobilenets.deploy import Classifier, read_classifier
from keras_mobilenets.errors import UsageError
from keras_mobilenets.inference import pictures
from keras_mobilenets.inference.answers import tally_answers
from keras_mobilenets.inference.label_tally import LabelTally
from keras_mobilenets.inference.run_data import check_fits, load_run_data
from keras_mobilenets.inference.tally import Tally
from keras_mobilenets.storage import check_path
from keras_mobilenets.training.compiling import TOP_5_FROM
from keras_mobilenets.training.counting import THRESHOLD
from keras_mobilenets.training.distribution import is_asynchronous, is_chief
from keras_mobilenets.training.interruption import watching_workers
from keras_mobilenets.training.measuring import load_run_model
from keras_mobilenets.training.strategies import make_strategy
from keras_mobilenets.training.workdir import (
    check_new,
    find_finished,
    read_report,
)

SPLITS = ("test", "validation", "train")
EVALUATION = "evaluation.json"  # in the folder of a report


def evaluate(
    workdir: str | os.PathLike[str] | None = None,
    *,
    model: str | os.PathLike[str] | None = None,
    data: Any = None,
    label: str | None = None,
    image: str | None = None,
    split: str = "test",
    data_dir: str | os.PathLike[str] | None = None,
    strategy: str | tf.distribute.Strategy = "auto",
    cpu_replicas: int | None = None,
    report: str | os.PathLike[str] | None = None,
    verbose: bool = True,
) -> dict[str, Any]:
    """What a finished run is worth on a split, every image exactly once.

    Args:
        workdir: of `train`; by default the newest run in `runs`.
        model: a file or folder that `export` wrote, which answers in the place of the
            run's own model; on one device.
        data: another source with the same classes; by default the run's own, which is
            to be passed again if it was in memory.
        label, image: of that other source, as in `load_data`.
        split: "test", "validation" or "train".
        data_dir: where TFDS keeps its prepared data.
        strategy, cpu_replicas: as in `train`.
        report: a new folder, for what is returned as evaluation.json, and pictures of
            it: confusion.png and reliability.png, or labels.png where images may have
            several, and, if there are any, mistakes.png.
        verbose: show progress.

    Returns:
        A dict, ready for JSON:
        "loss", cross entropy without label smoothing; "accuracy"; "top5", from 100
        classes on; "images", how many; "split"; "data"; "workdir"; "model", if given;
        "calibration_error", the expected calibration error in 15 bins of equal width
        (Guo et al. 2017, arXiv:1706.04599), and "reliability", these bins
        [{"low", "high", "images", "confidence", "accuracy"}];
        "per_class" {name: {"precision", "recall", "f1", "support"}}, None where they
        would be shares of nothing: see `docs/evaluation.md`;
        "confusion" {true class: {predicted class: images}}, without zeros;
        "mistakes" [{"image", "true", "predicted", "confidence"}], the 25 most
        confident ones; an image is a path or, where it has no file, its number in the
        split.
        Of a run on images that may have several labels: "loss", binary cross entropy;
        "binary_accuracy", the share of right answers to whether an image has a label;
        "f1_score" and "mean_average_precision", means over labels; "threshold", above
        which a probability says that an image has a label; "images", "split", "data",
        "workdir"; "per_class", with "average_precision"; "mistakes", where "true" are
        all labels, joined by "|", and "predicted" one of the others, or "not" and one
        of these.

    Raises:
        ValueError: no finished run there, or data of other classes or with several
            labels an image instead of one, or a report that exists.

    Example:
        km.evaluate("runs/digits-1", report="digits")["per_class"]["8"]["recall"]
    """
    check_choice("split", split, SPLITS)
    check_flag("verbose", verbose)
    if report is not None:
        report = check_path("report", report)
        check_new(pathlib.Path(report), "report")
    directory = find_finished(workdir)
    settings, stored = read_report(directory)
    classifier = None
    if model is not None:
        classifier = read_classifier(model, os.cpu_count() or 1)
        check_fits(classifier, model, settings, stored)
        if strategy not in ("auto", "none") or cpu_replicas is not None:
            raise UsageError("strategy is for Keras models; got it with a file")
        strategy = "none"
    strategy = make_strategy(strategy, cpu_replicas)
    if is_asynchronous(strategy):
        raise UsageError(
            "strategy 'parameter_server' is for training; got it for evaluation: give "
            "strategy='none'"
        )
    source, splits = load_run_data(
        directory,
        settings,
        stored,
        data=data,
        label=label,
        image=image,
        data_dir=data_dir,
        replicas=strategy.num_replicas_in_sync,
    )
    forward = _forward_of(classifier) if classifier else None
    if forward is None:
        with strategy.scope():
            forward = load_run_model(directory, len(splits.classes))
    chief = is_chief(strategy)
    with watching_workers(strategy):
        tally = tally_answers(forward, strategy, splits, split, verbose and chief)
    where = {"split": split, "data": source, "workdir": str(directory)}
    if model is not None:
        where["model"] = os.fspath(model)
    result, worst = (_of_labels if splits.multi_label else _of_classes)(
        tally, splits, {"images": tally.images, **where}
    )
    images = zip(result["mistakes"], splits.names_of(split, worst), strict=True)
    result["mistakes"] = [{"image": name, **mistake} for mistake, name in images]
    if report is not None and chief:
        _write_report(report, result, splits.images(split, worst))
    return result


def _forward_of(classifier: Classifier) -> Callable[..., tf.Tensor]:
    """A file in the place of a Keras model."""

    def forward(images: tf.Tensor, training: bool = False) -> tf.Tensor:
        scores = tf.numpy_function(classifier.probabilities, [images], tf.float32)
        return tf.ensure_shape(scores, [None, len(classifier.classes)])

    return forward


def _of_classes(
    tally: Tally, splits: Splits, where: dict[str, Any]
) -> tuple[dict[str, Any], list[int]]:
    """What is returned of images with one label each; the numbers of its mistakes."""
    top5 = {"top5": tally.top5 / tally.images}
    result = {
        "loss": tally.loss / tally.images,
        "accuracy": tally.right / tally.images,
        **(top5 if len(splits.classes) >= TOP_5_FROM else {}),
        **where,
        "calibration_error": tally.calibration_error(),
        "reliability": tally.reliability(),
        "per_class": tally.per_class(splits.classes),
        "confusion": tally.confusion(splits.classes),
        "mistakes": [
            {
                "true": splits.classes[label],
                "predicted": splits.classes[predicted],
                "confidence": -confidence,
            }
            for confidence, _, label, predicted in tally.worst
        ],
    }
    return result, [number for _, number, *_ in tally.worst]


def _of_labels(
    tally: LabelTally, splits: Splits, where: dict[str, Any]
) -> tuple[dict[str, Any], list[int]]:
    """The same of images that may have several labels."""
    worst = tally.worst()
    result = {
        **tally.figures(),
        "threshold": THRESHOLD,
        **where,
        "per_class": tally.per_class(splits.classes),
        "mistakes": [
            {
                "true": splits.label_text(mistake.has),
                "predicted": "not " * bool(mistake.has[mistake.label])
                + splits.classes[mistake.label],
                "confidence": mistake.confidence,
            }
            for mistake in worst
        ],
    }
    return result, [mistake.number for mistake in worst]


def _write_report(
    folder: str, result: dict[str, Any], mistakes: Sequence[np.ndarray]
) -> None:
    """Numbers and pictures in a new folder, all or nothing."""
    if "confusion" in result:
        figures = {
            "confusion": pictures.draw_confusion(result),
            "reliability": pictures.draw_reliability(result),
        }
    else:
        figures = {"labels": pictures.draw_labels(result)}
    if mistakes:
        figures["mistakes"] = pictures.draw_mistakes(result, mistakes)
    with storage.new_folder(folder) as beside, warnings.catch_warnings():
        # Of letters that Matplotlib's font lacks, a warning each; they become boxes.
        warnings.filterwarnings("ignore", message="Glyph")
        for name, figure in figures.items():
            figure.savefig(beside / f"{name}.png", dpi=150)
        storage.write_json(beside / EVALUATION, result)
