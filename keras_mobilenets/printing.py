"""What the verbs of the command line show to people: tables, and sentences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from keras_mobilenets.architecture import Cost
from keras_mobilenets.architecture.shapes import sides
from keras_mobilenets.recipe import Recipe, difference
from keras_mobilenets.text import count, table

TIMES = ("median", "p10", "p90", "least", "cpu")  # of a form, in milliseconds
PLACES = 3  # of the labels of an image that may have several
CLASSES_SHOWN = 30  # by evaluate; of more, the worst


def print_evaluation(result: dict[str, Any], report: str | None) -> None:
    """What `evaluate` measured; `report` is where it wrote more."""
    _print_classes(result)
    if report:
        print(f"\nreport: {report}", end="")
    if "accuracy" in result:
        top5 = f"top-5 {result['top5']:.2%}, " if "top5" in result else ""
        figures = (
            f"accuracy {result['accuracy']:.2%}, {top5}cross entropy "
            f"{result['loss']:.4f}, expected calibration error "
            f"{result['calibration_error']:.2%}"
        )
    else:
        average = result["mean_average_precision"]
        figures = (
            f"F1 {result['f1_score']:.2%}, mean average precision "
            f"{'-' if average is None else f'{average:.2%}'}, binary accuracy "
            f"{result['binary_accuracy']:.2%}, binary cross entropy "
            f"{result['loss']:.4f}"
        )
    print(
        f"\n{result['split']} {figures}, on {result['images']:,} images of "
        f"{result['data']}, by {result.get('model', result['workdir'])}"
    )


def _print_classes(result: dict[str, Any]) -> None:
    """The figures of every class, or of the worst of many."""
    worst = sorted(
        result["per_class"].items(),
        key=lambda item: 2 if item[1]["f1"] is None else item[1]["f1"],
    )
    chosen = result["per_class"] if len(worst) <= CLASSES_SHOWN else dict(worst[:10])
    figures = {"precision": "precision", "recall": "recall", "f1": "F1"}
    if "accuracy" not in result:
        figures["average_precision"] = "average precision"
    rows = [
        (
            name,
            *(
                None if of[figure] is None else f"{of[figure]:.1%}"
                for figure in figures
            ),
            f"{of['support']:,}",
        )
        for name, of in result["per_class"].items()
        if name in chosen
    ]
    some = "class" if len(chosen) == len(worst) else "worst classes"
    print(table([some, *figures.values(), "images"], rows))


def print_export(report: dict[str, Any]) -> None:
    """What a file is worth, and where it is."""
    proof, latency = report["proof"], report["latency"]
    sure, threads = proof["agreement_where_sure"], latency["threads"]
    low, high = proof["logits"]
    rows = [
        ("size", f"{report['bytes']:,} bytes", report["format"]),
        (
            "agreement with Keras",
            f"{proof['agreement']:.2%}",
            f"{proof['images']:,} images: {proof['source']}",
        ),
        (
            "where it is sure",
            None if sure is None else f"{sure:.2%}",
            f"{proof['sure_images']:,} images; at least "
            f"{report['required_agreement']:.1%} is required",
        ),
        (
            "error of logits",
            f"{proof['rms_logit_error']:.2g}",
            f"root mean square; {proof['largest_logit_error']:.2g} at most; they are "
            f"{low:.1f} to {high:.1f}",
        ),
        (
            "latency",
            f"{latency['median_ms']:.3g} ms",
            f"one image, {threads} thread{'s' * (threads > 1)}; median of "
            f"{latency['runs']}",
        ),
    ]
    if "accuracy" in proof:
        rows.insert(
            3,
            (
                "accuracy",
                f"{proof['accuracy']:.2%}",
                f"Keras: {proof['keras_accuracy']:.2%}",
            ),
        )
    if report["fine_tuning"]:
        rows.append(_fine_tuning_row(report["fine_tuning"]))
    print(table([report["file"], "", ""], rows))
    print(f"\n{report['path']}, and {report['path']}.json")


def _fine_tuning_row(fine_tuning: dict[str, Any]) -> tuple[Any, ...]:
    """What it did to the validation split."""
    figures = fine_tuning["validation"]
    name = "accuracy" if "accuracy" in figures["float32"] else "binary_accuracy"
    before, calibrated, after = (
        f"{figures[key][name]:.2%}" for key in ("float32", "calibrated", "fine_tuned")
    )
    what = f"{name.replace('_', ' ')} of validation"
    return "fine-tuned", after, f"{what}; float32: {before}, calibrated: {calibrated}"


def print_benchmark(result: dict[str, Any]) -> None:
    """A table for each batch size, and what was measured."""
    for batch in dict.fromkeys(row["batch"] for row in result["rows"]):
        rows = [
            (
                row["form"],
                f"{row['bytes']:,}",
                *(f"{row[f'{key}_ms']:.4g}" for key in TIMES),
                f"{row['relative']:.3g}",
                count(1000 * batch / row["median_ms"]),
                row["calls"],
            )
            for row in result["rows"]
            if row["batch"] == batch
        ]
        header = [
            f"batch {batch}", "bytes", "median ms", "10 %", "90 %", "least", "cpu",
            "relative", "images/s", "calls",
        ]  # fmt: skip
        print(table(header, rows), end="\n\n")
    network = ", ".join(f"{k} {v}" for k, v in result["network"].items())
    machine = result["machine"]
    print(
        f"{network}; images {'x'.join(map(str, result['image']))}; threads: "
        f"{result['threads']}, on {machine['cores']} cores of {machine['processor']}"
    )


def print_answers(results: list[dict[str, Any]]) -> None:
    """The classes that `predict` gives each image, the likeliest first."""
    places = max(len(result["classes"]) for result in results)
    several = "labels" in results[0]
    if several:  # all are there; the likeliest are shown
        places = min(places, PLACES)
    rows = [
        (
            result["image"],
            *([", ".join(result["labels"]) or None] if several else []),
            *(
                f"{name} {probability:.1%}"
                for name, probability in zip(
                    result["classes"][:places],
                    result["probabilities"][:places],
                    strict=True,
                )
            ),
        )
        for result in results
        if result["classes"]
    ]
    header = ["image", *["labels"] * several]
    print(table([*header, *(f"{place}." for place in range(1, places + 1))], rows))


def print_check(report: dict[str, Any]) -> None:
    """What `doctor` found."""
    splits = report["splits"]
    if splits:
        rows = [
            (
                split,
                f"{of['images']:,}",
                *(" ... ".join(map(str, of[side])) for side in ("height", "width")),
                f"{of['repeated']:,}",
            )
            for split, of in splits.items()
        ]
        header = ["split", "images", "height", "width", "repeated"]
        print(table(header, rows), end="\n\n")
        rows = [(name, *counts.values()) for name, counts in report["classes"].items()]
        print(table(["class", *splits], rows), end="\n\n")
    for file in report["tar_files"]:
        found = "missing" if file["found"] is None else f"{file['found']:,} found"
        print(f"tar file: {file['path']} ({file['bytes']:,} bytes; {found})")
    for file in report["broken"]:
        print(f"broken: {file['path']} ({file['reason']})")
    for same in report["duplicates"]:
        print(
            "the same: "
            + ", ".join(f"{e['image']} ({e['class']}, {e['split']})" for e in same)
        )
    for name, value in report.get("scale", {}).items():
        shown = value if isinstance(value, bool) else f"{value:,}"
        print(f"{name.replace('_', ' ')}: {shown}")
    for kind, sentences in (("note", "notes"), ("problem", "problems")):
        for sentence in report[sentences]:
            print(f"{kind}: {sentence}")
    if report["sheet"]:
        print(f"contact sheet: {report['sheet']}")
    print("problems were found" if report["problems"] else "no problems found")


def print_cost(name: str, cost: Cost, layers: bool) -> None:
    """Totals, and with `layers` a row for each."""
    if layers:
        rows: list[tuple[Any, ...]] = [
            (
                row.name,
                row.layer.kind,
                "{}x{}x{}".format(*sides(row.layer.size_out), row.layer.channels_out),
                f"{row.macs:,}",
                f"{row.params:,}",
                f"{row.memory:,}",
            )
            for row in cost.layers
        ]
        header = ["layer", "kind", "output", "mult-adds", "parameters", "memory"]
        print(table(header, rows), end="\n\n")
    rows = [
        ("mult-adds", f"{cost.macs:,}", count(cost.macs)),
        ("parameters", f"{cost.params:,}", count(cost.params)),
        ("trainable", f"{cost.trainable_params:,}", count(cost.trainable_params)),
        (
            "peak memory",
            f"{cost.peak_memory:,}",
            f"{count(cost.peak_memory)}B of activations, one image, "
            f"{cost.bytes_per_element} bytes each",
        ),
    ]
    print(table([name, "exactly", "about"], rows))


def print_points(points: Sequence[Any]) -> None:
    """Published networks that `recommend` found."""
    rows = [
        (
            point.name,
            point.alpha,
            point.resolution,
            point.top1,
            point.top5,
            count(point.macs),
            count(point.params),
            point.latency_ms,
        )
        for point in points
    ]
    header = [
        "network", "alpha", "px", "top-1 %", "top-5 %", "mult-adds", "parameters",
        "Pixel 1 ms",
    ]  # fmt: skip
    print(table(header, rows))


def print_recipe(recipe: Recipe) -> None:
    """Every field of a recipe with its source."""
    rows = [(f, v, recipe.sources[f]) for f, v in recipe.as_dict().items()]
    print(f"{recipe.name}: {recipe.summary}")
    print(f"measured here: {recipe.measured}\n")
    print(table(["field", "value", "source"], rows))


def print_difference(first: Recipe, second: Recipe) -> None:
    """Where two recipes differ, and by whose word."""
    differing = difference(first, second)
    for field, one, other, source, other_source in differing:
        print(f"{field}\n  {first.name}: {one}  {source}")
        print(f"  {second.name}: {other}  {other_source}")
    print(f"{len(differing)} fields differ")
