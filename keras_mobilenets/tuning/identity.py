"""What a function is, in JSON: by this a search knows whether it was given the same."""

from __future__ import annotations

import functools
import hashlib
import json
import pickle
import types
from collections.abc import Mapping
from typing import Any

from keras_mobilenets.errors import UsageError


def identify(argument: str, value: Any) -> Any:
    """A value as JSON keeps it, another one for every other value.

    A function is known by its name, its code, and what it has taken from around it;
    not by the functions that it calls. Other objects are known by their pickle.

    Raises:
        UsageError: it cannot be told apart from others.

    >>> identify("prior", lambda a: a) == identify("prior", lambda a: -a)
    False
    """
    try:
        return _identify(argument, value)
    except (RecursionError, ValueError) as error:  # of a function that holds itself
        raise _unknown(argument, value, error) from None


def _unknown(argument: str, value: Any, error: Exception) -> UsageError:
    if isinstance(error, UsageError):
        return error
    return UsageError(
        f"{argument} must be something that can be told apart from others, such as a "
        f"function of a module; got {value!r} ({error})"
    )


def _identify(argument: str, value: Any) -> Any:
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    if isinstance(value, (list, tuple)):
        return [_identify(argument, item) for item in value]
    if isinstance(value, (set, frozenset)):
        return sorted((_identify(argument, item) for item in value), key=json.dumps)
    if isinstance(value, Mapping):
        pairs = [
            [_identify(argument, k), _identify(argument, v)] for k, v in value.items()
        ]
        return sorted(pairs, key=json.dumps)
    if isinstance(value, functools.partial):
        called = (value.func, value.args, value.keywords)
        return ["partial", *(_identify(argument, part) for part in called)]
    if isinstance(value, types.MethodType):
        bound = (value.__func__, value.__self__)
        return ["method", *(_identify(argument, part) for part in bound)]
    if isinstance(value, types.FunctionType):
        cells = [cell.cell_contents for cell in value.__closure__ or ()]
        taken = (value.__defaults__, value.__kwdefaults__, cells)
        code = _identify_code(argument, value.__code__)
        parts = [code, *(_identify(argument, part) for part in taken)]
        return f"{value.__module__}.{value.__qualname__} {_digest(parts)}"
    if isinstance(value, (type, types.BuiltinFunctionType)):
        return f"{value.__module__}.{value.__qualname__}"
    try:
        pickled = pickle.dumps(value)
    except Exception as error:
        raise _unknown(argument, value, error) from None
    return f"{type(value).__qualname__} {hashlib.sha256(pickled).hexdigest()[:16]}"


def _identify_code(argument: str, code: types.CodeType) -> list[Any]:
    constants = [
        _identify_code(argument, constant)
        if isinstance(constant, types.CodeType)
        else repr(constant)
        if isinstance(constant, (bytes, complex, type(...)))
        else _identify(argument, constant)
        for constant in code.co_consts
    ]
    return [code.co_code.hex(), list(code.co_names), constants]


def _digest(parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]
