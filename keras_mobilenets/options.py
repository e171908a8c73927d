"""Options that are written down once: fields of a frozen record.

A field has a default, a check and a help text. From the record follow a function's
signature and the list of its arguments, the command line's options, and what is
checked. `Settings` (settings.py), `Execution` (execution.py) and `Recipe`
(recipe/record.py) are such records. No TensorFlow here.
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import enum
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from keras_mobilenets.architecture.arguments import check_integer
from keras_mobilenets.errors import UsageError

Check = Callable[[str, Any], Any]  # (argument, value) -> the value that is accepted
F = TypeVar("F", bound=Callable[..., Any])

MOST = 2**31 - 1  # of what is counted, as steps


class _NotGiven(enum.Enum):
    NOT_GIVEN = "not given"

    def __repr__(self) -> str:
        return self.value


# None, 0 and the default are things that a user can say; this is saying nothing.
NOT_GIVEN: Any = _NotGiven.NOT_GIVEN


def option(
    check: Check,
    help: str,
    default: Any = NOT_GIVEN,
    *,
    text: bool = False,
    none_is_default: bool = False,
    group: str | None = None,
) -> Any:
    """A field of a record of options.

    `text` is taken from the command line as it stands, not read as a number.
    `none_is_default` takes None for not given. Fields of one `group` are kept in a
    dict of that name where a record is written down.
    """
    return dataclasses.field(
        default=default,
        metadata={
            "check": check,
            "help": help,
            "text": text,
            "none_is_default": none_is_default,
            "group": group,
        },
    )


def options_of(record: type) -> dict[str, dataclasses.Field]:
    """The options of a record, by name."""
    fields = dataclasses.fields(record)
    return {field.name: field for field in fields if "check" in field.metadata}


def is_given(field: dataclasses.Field, value: Any) -> bool:
    """Whether `value` says anything."""
    unsaid = value is None and field.metadata.get("none_is_default")
    return value is not NOT_GIVEN and not unsaid


def check_options(record: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """Those of `values` that say something, checked.

    Raises:
        UsageError: a value that its field does not accept.
    """
    fields = options_of(record)
    return {
        name: fields[name].metadata["check"](name, value)
        for name, value in values.items()
        if is_given(fields[name], value)
    }


def accepts(*records: type) -> Callable[[F], F]:
    """Give a function of `**options` the signature and arguments of records."""

    def documented(function: F) -> F:
        own = inspect.signature(function).parameters.values()
        named = [p for p in own if p.kind is not inspect.Parameter.VAR_KEYWORD]
        taken = {parameter.name for parameter in named}
        rest = [p for p in own if p.kind is inspect.Parameter.VAR_KEYWORD]
        added, lines = [], []
        for record in records:
            for name, field in options_of(record).items():
                lines.append(f"{name}: {field.metadata['help']}.")
                if name not in taken:
                    kind = inspect.Parameter.KEYWORD_ONLY
                    added.append(
                        inspect.Parameter(
                            name, kind, default=field.default, annotation=field.type
                        )
                    )
        signature = inspect.signature(function)
        function.__signature__ = signature.replace(  # type: ignore[attr-defined]
            parameters=[*named, *added, *rest]
        )
        # Python 3.13 takes the indentation out of docstrings.
        doc = function.__doc__ or ""
        inner = "    " if "\nArgs:\n" in doc else "        "
        listed = "".join(f"{inner}{line}\n" for line in lines)
        function.__doc__ = doc.replace("Args:\n", f"Args:\n{listed}", 1)
        return function

    return documented


# The command line


def parse_value(text: str) -> Any:
    """A number, True, False, None or a tuple where `text` is one, else the text.

    What it is not, the checks say.
    """
    try:
        if text.lower() in ("nan", "inf", "-inf"):
            return float(text)
        if text.lower() in ("true", "false"):
            return text.lower() == "true"
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return text


def add_options(
    parser: argparse.ArgumentParser,
    record: type,
    *,
    title: str | None = None,
    only: Iterable[str] | None = None,
    without: Iterable[str] = (),
) -> None:
    """An option of the command line for every field of a record, or for some."""
    place: Any = parser.add_argument_group(title) if title else parser
    for name, field in options_of(record).items():
        if name in without or (only is not None and name not in only):
            continue
        how: dict[str, Any] = {"help": field.metadata["help"].replace("%", "%%")}
        if str(field.type).startswith("bool"):
            how["action"] = argparse.BooleanOptionalAction
        else:
            how["type"] = str if field.metadata.get("text") else parse_value
            how["metavar"] = name.upper()
            if ", ...]" in str(field.type):  # as many as one likes
                how["nargs"] = "+"
        place.add_argument(f"--{name.replace('_', '-')}", default=NOT_GIVEN, **how)


def as_arguments(values: Mapping[str, Any]) -> list[str]:
    """Options as they are given on the command line.

    >>> as_arguments({"alpha": 0.5, "shallow": True, "splits": {"a": "b"}})
    ['--alpha', '0.5', '--shallow', '--splits', "{'a': 'b'}"]
    """
    arguments = []
    for name, value in values.items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            arguments.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            text = value if isinstance(value, str) else repr(value)
            dashed = text.startswith("-")  # which would be taken for an option
            arguments += [f"--{flag}={text}"] if dashed else [f"--{flag}", text]
    return arguments


def given_options(arguments: argparse.Namespace, *records: type) -> dict[str, Any]:
    """What was given of the options of `records`, `--set FIELD=VALUE` included."""
    values = {
        name: getattr(arguments, name)
        for record in records
        for name in options_of(record)
        if getattr(arguments, name, NOT_GIVEN) is not NOT_GIVEN
    }
    for pair in getattr(arguments, "set", ()):
        field, equals, value = pair.partition("=")
        if not (field and equals):
            raise UsageError(
                f"--set must be FIELD=VALUE, such as expansion=4; got {pair!r}"
            )
        if field in values:
            raise UsageError(f"{field} must be given once; got --set {pair} too")
        values[field] = parse_value(value)
    return values


# Checks of what only options of runs have


def whole(low: int, high: int = MOST) -> Check:
    """The check of a whole number in these bounds."""
    return lambda name, value: check_integer(name, value, low=low, high=high)


def none_or(check: Check) -> Check:
    """As `check`, and None."""
    return lambda name, value: None if value is None else check(name, value)
