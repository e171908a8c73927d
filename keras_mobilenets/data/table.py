"""CSV files of path, label and, if wanted, split, as spreadsheets write them."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from keras_mobilenets.data.layout import SPLIT_NAMES, SPLIT_OF
from keras_mobilenets.errors import UsageError
from keras_mobilenets.given import JOINT, Label, check_label_set

# What a column may be called in the first line, with or without capitals.
COLUMNS = {
    "path": ("path", "file", "filename", "file_name", "filepath", "image"),
    "label": ("label", "class"),
    "split": ("split", "set", "subset"),
}
NONE = "; if an image may have several labels or none, give multi_label=True"
SEPARATORS = (",", ";", "\t")  # some countries' spreadsheets write semicolons
FORM = "expected the columns path,label or path,label,split, with or without names"
HINT = (
    "if line 1 names the columns, call them path, label and split, or give "
    "image=NAME and label=NAME"
)


class _Columns(NamedTuple):
    """Where in a line they are."""

    path: int
    label: int
    split: int | None


def read_table(
    file: str | os.PathLike,
    label: str | None = None,
    image: str | None = None,
    multi_label: bool | None = None,
) -> dict[str, list[tuple[Label, str]]]:
    """(label, absolute path) of each row of a CSV file, by split.

    Columns are separated by commas, semicolons or tabs. Paths are absolute, or
    relative to the folder of the file. Without a split column all rows are "train".
    Lines that are empty do not count. `label` and `image` name other columns of the
    first line for the label and the path. With `multi_label` a label is all that an
    image has, joined by "|", or nothing; without, such a label is refused, unless
    `multi_label` is False: then "|" is part of the name.

    UsageError, with the line, if it is no such file.
    """
    path = Path(os.path.abspath(Path(file).expanduser()))
    where = repr(os.fspath(file))
    lines = _lines(path, where)
    if not lines:
        raise UsageError(f"source {where} has no rows; {FORM}")
    first = lines[0][1]
    columns = _named_columns(first, label, image, where)
    if columns:
        lines = lines[1:]
        width = len(first)
    else:
        # A row with two values among others with three ends with a separator.
        width = max(len(cells) for _, cells in lines)
        if width not in (2, 3):
            raise UsageError(
                f"source {where} has {width} columns in a line, without names for "
                f"them; {FORM} (a path with a comma goes in quotes)"
            )
        columns = _Columns(0, 1, 2 if width == 3 else None)
    rows: dict[str, list[tuple[Label, str]]] = {"train": []}
    of = columns.label
    for line, cells in lines:
        if len(cells) > width:
            raise UsageError(
                f"source {where} has {len(cells)} values in line {line}, and {width} "
                "columns; a path with a comma goes in quotes"
            )
        cells = [*cells, *[""] * (width - len(cells))]
        for column, at in columns._asdict().items():
            if at is not None and not cells[at] and not (multi_label and at == of):
                hint = "" if column != "label" or multi_label is False else NONE
                raise UsageError(f"source {where} has no {column} in line {line}{hint}")
        split = "train"
        if columns.split is not None:
            named = cells[columns.split]
            if named.lower() not in SPLIT_OF:
                raise UsageError(
                    f"source {where} has the split {named!r} in line {line}; splits "
                    f"are {', '.join(SPLIT_OF)}" + (f"; {HINT}" if line == 1 else "")
                )
            split = SPLIT_OF[named.lower()]
        image_path = os.path.expanduser(cells[columns.path])
        full = os.path.abspath(os.path.join(path.parent, image_path))
        said = _label(cells[of], f"line {line} of {where}", multi_label)
        rows.setdefault(split, []).append((said, full))
    if not rows["train"]:
        raise UsageError(
            f"source {where} has no row for train"
            + (f", and some for {', '.join(list(rows)[1:])}" if len(rows) > 1 else "")
            + f"; names of that split are {', '.join(SPLIT_NAMES['train'])}"
        )
    return rows


def _label(cell: str, where: str, multi_label: bool | None) -> Label:
    """One label, or all labels, of a cell."""
    if multi_label:
        parts = [part.strip() for part in cell.split(JOINT)] if cell else []
        if not all(parts):
            raise UsageError(
                f"source has an empty label between {JOINT!r} in {where}; got {cell!r}"
            )
        return check_label_set(parts, where)
    if JOINT in cell and multi_label is None:
        raise UsageError(
            f"source has the label {cell!r} in {where}: give multi_label=True if these "
            f"are several labels of one image, or multi_label=False if {JOINT!r} is "
            "part of the name of a class"
        )
    return cell


def _lines(path: Path, where: str) -> list[tuple[int, list[str]]]:
    """The number of each line that is not empty, and its values."""
    if not path.is_file():
        what = "is no file" if path.exists() else "does not exist"
        raise UsageError(
            f"source must be a CSV file; {where} {what} (looked for {str(path)!r})"
        )
    try:
        text = path.read_bytes().decode("utf-8-sig")  # Excel begins with a mark
    except UnicodeDecodeError as error:
        raise UsageError(
            f"source {where} must be UTF-8 ({error}); save it as 'CSV UTF-8'"
        ) from error
    except OSError as error:
        raise UsageError(f"source {where} cannot be read ({error.strerror})") from error
    if "\0" in text:
        raise UsageError(f"source {where} holds zero bytes, so it is no text; {FORM}")
    head = text.lstrip().partition("\n")[0]
    reader = csv.reader(
        io.StringIO(text, newline=""),
        delimiter=max(SEPARATORS, key=head.count),  # the first of several as frequent
        skipinitialspace=True,
        strict=True,
    )
    lines = []
    try:
        for row in reader:
            cells = [cell.strip() for cell in row]
            while cells and not cells[-1]:
                cells.pop()
            if cells:
                lines.append((reader.line_num, cells))
    except csv.Error as error:
        raise UsageError(
            f"source {where} is no CSV file, near line {reader.line_num} ({error}); "
            f"{FORM}"
        ) from error
    return lines


def _named_columns(
    first: Sequence[str], label: str | None, image: str | None, where: str
) -> _Columns | None:
    """The columns that the first line names; None if it is a row as any other."""
    names = [name.lower() for name in first]
    found: dict[str, int | None] = {}
    for column, known in COLUMNS.items():
        asked = {"path": image, "label": label}.get(column)
        known = known if asked is None else (asked.lower(),)
        places = [place for place, name in enumerate(names) if name in known]
        if asked is not None and len(places) != 1:
            option = "image" if column == "path" else "label"
            raise UsageError(
                f"{option} must name one column of {where}; got {asked!r}, and the "
                f"first line is {', '.join(first)}"
            )
        if len(places) > 1:
            raise UsageError(
                f"source {where} must have one column for {column}; the first line has "
                f"{', '.join(first[place] for place in places)}"
            )
        found[column] = places[0] if places else None
    path, of_label = found["path"], found["label"]
    if path is None and (of_label is None or label is None):
        return None
    if path is None or of_label is None:
        lacking, option = ("path", "image") if path is None else ("label", "label")
        raise UsageError(
            f"source {where} must have a column named {lacking}; the first line is "
            f"{', '.join(first)}: give {option}=NAME of the one that it is"
        )
    return _Columns(path, of_label, found["split"])
