"""`predict`: the classes of image files, by a finished run or weights of ImageNet."""

from __future__ import annotations

import contextlib
import csv as comma_separated
import glob
import os
import pathlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import keras
import numpy as np

from keras_mobilenets import storage
from keras_mobilenets.architecture.arguments import (
    check_flag,
    check_integer,
    check_number,
    shown,
)
from keras_mobilenets.architecture.shapes import Resolution
from keras_mobilenets.data import load_image
from keras_mobilenets.data.layout import HARMLESS, find_images, sentence
from keras_mobilenets.errors import UsageError
from keras_mobilenets.given import JOINT
from keras_mobilenets.inference.predictor import Predictor, find_predictor
from keras_mobilenets.recipe import Recipe
from keras_mobilenets.storage import check_new_file, check_path
from keras_mobilenets.text import printable
from keras_mobilenets.training.counting import THRESHOLD

TOP = 3  # classes shown of an image
BATCH = 32  # images that go through the network at once
LOADERS = 4  # images that are decoded at once
FORMULA = ("=", "+", "-", "@")  # begins what a spreadsheet would compute

# An image as the network expects it, or the UsageError that says why there is none.
Loaded = Any


def predict(
    images: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    workdir: str | os.PathLike[str] | None = None,
    *,
    model: str | os.PathLike[str] | None = None,
    top: int | None = None,
    threshold: float | None = None,
    weights: str | os.PathLike[str] | None = None,
    name: str | None = None,
    alpha: float | None = None,
    resolution: Resolution | None = None,
    recipe: str | Recipe | None = None,
    csv: str | os.PathLike[str] | None = None,
    verbose: bool = True,
) -> list[dict[str, Any]]:
    """The most probable classes of image files, by a finished run or given weights.

    Args:
        images: a path, or several: of files, of folders (all images in them, also in
            folders inside), or patterns such as "photos/*.jpg".
        workdir: of `train`; by default the newest run in `runs`.
        model: a file or folder that `export` wrote, which needs no run: it knows its
            classes, and how images are prepared if it was exported with that. With a
            workdir, the run knows it.
        top: how many classes of each image (default 3, or all where an image may have
            several labels).
        threshold: above which probability an image is said to have a label (default
            0.5), of a run on images that may have several.
        weights: instead of a run, a network trained on ImageNet: "imagenet", or a file
            as in `build`. Its answers have ImageNet's names.
        name, alpha: of "imagenet" (default mobilenet_v2, 1.0); files say theirs.
        resolution: of the network with these weights (default 224).
        recipe: how images are prepared for it (default slim_v1 or slim_v2).
        csv: a new CSV file of the same, a row for each image.
        verbose: show progress, where there are many.

    Returns:
        For each image {"image", "classes", "probabilities"}, best first, in the order
        given and that of their names in a folder; and "labels", those above the
        threshold, of a run on images that may have several. One that cannot be read has
        no classes, and "error", which says why.

    Raises:
        ValueError: no finished run there, no such weights or names, nothing to be found
            at a path, not one image that can be read, a CSV file that exists, or a
            threshold of a run on images of one label each.

    Example:
        km.predict("runs/digits-1/samples")
    """
    if top is not None:
        top = check_integer("top", top, low=1)
    if threshold is not None:
        threshold = check_number("threshold", threshold, low=0, high=1)
    check_flag("verbose", verbose)
    if isinstance(images, (str, os.PathLike)):
        images = [images]
    try:
        several_paths = list(images)
    except TypeError:  # of a tensor without dimensions, which is an Iterable too
        raise UsageError(
            f"images must be paths of image files; got {shown(images)}"
        ) from None
    given = [check_path("images", path) and os.fspath(path) for path in several_paths]
    if not given:
        raise UsageError("images must name at least one file; got none")
    table = None if csv is None else check_new_file("csv", csv, ".csv")
    paths = [path for place in given for path in _expand(place)]
    by = find_predictor(
        workdir,
        weights,
        model,
        name=name,
        alpha=alpha,
        resolution=resolution,
        recipe=recipe,
    )
    several, classes = by.multi_label, by.classes
    if threshold is not None and not several:
        raise UsageError(
            f"threshold is for images that may have several labels; got {threshold:g} "
            f"for {by.source}, trained on images of one each, whose probabilities sum "
            "to 1"
        )
    above = (THRESHOLD if threshold is None else threshold) if several else None
    top = min(top or (len(classes) if several else TOP), len(classes))
    bar = keras.utils.Progbar(len(paths), verbose=int(verbose and len(paths) > BATCH))
    results: list[dict[str, Any]] = []
    with _writing(table, top, several) as write:
        load = _loader(by)
        for batch in _batches(paths, load):
            for path, answer in _answers(by.answer, batch):
                result = _result(path, answer, classes, top, above)
                write(result)
                results.append(result)
            bar.add(len(batch))
        errors = [result["error"] for result in results if "error" in result]
        if len(errors) == len(results):
            more = f", and so {len(errors) - 1:,} more" if errors[1:] else ""
            raise UsageError(f"images must be image files; {errors[0]}{more}")
    if errors:
        warnings.warn(
            f"{len(errors):,} of {len(results):,} images cannot be read: {errors[0]}"
            + ", ..." * (len(errors) > 1),
            stacklevel=2,
        )
    return results


def _result(
    path: str,
    answer: np.ndarray | UsageError,
    classes: Sequence[str],
    top: int,
    threshold: float | None,
) -> dict[str, Any]:
    """What is returned of an image; `threshold` where it may have several labels."""
    if isinstance(answer, UsageError):
        said = {"classes": [], "probabilities": [], "error": _reason(answer)}
        return {
            "image": path,
            **({"labels": []} if threshold is not None else {}),
            **said,
        }
    best = np.argsort(-answer, kind="stable")
    labels = {}
    if threshold is not None:
        above = [classes[number] for number in best if answer[number] > threshold]
        labels = {"labels": above}
    best = best[:top]
    names = [classes[number] for number in best]
    said = {"classes": names, "probabilities": answer[best].tolist()}
    return {"image": path, **labels, **said}


def _reason(error: UsageError) -> str:
    """What `load_image` says of a file, without what it asks for."""
    return str(error).removeprefix("path must be an image file; ")


def _expand(name: str) -> list[str]:
    """The files that a path or a pattern stands for.

    Raises:
        UsageError: there are none.
    """
    path = os.path.expanduser(name)
    if os.path.isdir(path):
        found, passed = find_images(pathlib.Path(path))
        said = sentence(passed) if passed else "it is empty"
        if not found:
            raise UsageError(
                f"images must name folders with images in them; {name!r} holds none: "
                f"{said}"
            )
        if set(passed) - {HARMLESS}:
            warnings.warn(f"in {name!r} {said}", stacklevel=3)
        return found
    if os.path.lexists(path):
        return [name]
    found = sorted(glob.glob(path, recursive=True)) if glob.has_magic(path) else []
    if not found:
        what = "matches nothing" if glob.has_magic(path) else "does not exist"
        raise UsageError(
            f"images must be image files or folders of them; {name!r} {what} (looked "
            f"in {os.path.dirname(os.path.abspath(path))!r})"
        )
    return [file for match in found for file in _expand(match)]


def _loader(by: Predictor) -> Callable[[str], tuple[str, Loaded]]:
    def load(path: str) -> tuple[str, Loaded]:
        try:
            return path, load_image(path, by.resolution, by.recipe, by.channels)
        except UsageError as error:
            return path, error

    return load


def _batches(
    paths: Sequence[str], load: Callable[[str], tuple[str, Loaded]]
) -> Iterator[list[tuple[str, Loaded]]]:
    """The images, so many at a time; while these are used the next are loaded."""
    chunks = [paths[start : start + BATCH] for start in range(0, len(paths), BATCH)]
    with ThreadPoolExecutor(LOADERS) as pool:
        coming = pool.map(load, chunks[0])
        for following in (*chunks[1:], []):
            batch = list(coming)
            coming = pool.map(load, following)
            yield batch


def _answers(
    answer_of: Callable[[np.ndarray], np.ndarray], batch: list[tuple[str, Loaded]]
) -> Iterator[tuple[str, np.ndarray | UsageError]]:
    """The probabilities of each image, or why there are none."""
    good = [image for _, image in batch if not isinstance(image, UsageError)]
    scores = iter(answer_of(np.stack(good)) if good else ())
    for path, image in batch:
        answer = image if isinstance(image, UsageError) else next(scores)
        if not isinstance(answer, UsageError) and not np.isfinite(answer).all():
            answer = UsageError(f"{path!r} makes the model give what is no number")
        yield path, answer


@contextlib.contextmanager
def _writing(
    path: pathlib.Path | None, places: int, several: bool
) -> Iterator[Callable[[dict[str, Any]], Any]]:
    """A function that adds a result to a CSV file, if there is to be one.

    One line a row, and valid UTF-8, whatever files and classes are called: what is not
    printable is escaped. No cell is a formula to a spreadsheet.
    """
    if path is None:
        yield lambda result: None
        return
    with storage.replacing(path) as beside:
        with open(beside, "w", newline="", encoding="utf-8") as file:
            writer = comma_separated.writer(file)
            header = ["image", *["labels"] * several]
            for place in range(1, places + 1):
                header += [f"class_{place}", f"probability_{place}"]
            writer.writerow([*header, "error"])

            def write(result: dict[str, Any]) -> None:
                said: list[Any] = [""] * (2 * places)
                said[: 2 * len(result["classes"]) : 2] = map(_name, result["classes"])
                said[1 : 2 * len(result["classes"]) : 2] = result["probabilities"]
                image = printable(result["image"])
                if image.startswith(FORMULA):
                    image = f".{os.sep}{image}"  # the same file
                if several:
                    said = [_name(JOINT.join(result["labels"])), *said]
                writer.writerow([image, *said, printable(result.get("error", ""))])

            yield write


def _name(of: str) -> str:
    """The name of a class as a cell; an apostrophe keeps a formula from being one."""
    name = printable(of)
    if not name.startswith(FORMULA):
        return name
    try:
        float(name)
    except ValueError:
        return f"'{name}"
    return name
