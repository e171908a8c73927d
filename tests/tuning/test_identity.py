"""Functions are told apart by what they do; the same one is the same again."""

import functools
import json
import math
import subprocess
import sys

import pytest

from keras_mobilenets.errors import UsageError
from keras_mobilenets.tuning.identity import identify


def prior(name, alpha, resolution, factor=1):
    return alpha * factor


def taking(factor):
    return lambda name, alpha, resolution: alpha * factor


class Callable:
    def __init__(self, factor):
        self.factor = factor

    def __call__(self, name, alpha, resolution):
        return alpha * self.factor

    def method(self, name, alpha, resolution):
        return alpha * self.factor


class Unpicklable(Callable):
    def __reduce__(self):
        raise TypeError("not this one")


DIFFERENT = {
    "None": None,
    "a word": "published",
    "a number": 1,
    "lambda": lambda n, a, r: a,
    "lambda, other code": lambda n, a, r: r,
    "lambda, other constant": lambda n, a, r: a + 1,
    "lambda, larger constant": lambda n, a, r: a + 2,
    "lambda, a set": lambda n, a, r: n in {"a", "b", "c"},
    "lambda, another set": lambda n, a, r: n in {"a", "b", "d"},
    "lambda, other name": lambda n, a, r: math.log(a),
    "lambda, another name": lambda n, a, r: math.exp(a),
    "lambda, inner": lambda n, a, r: max([a], key=lambda x: x),
    "lambda, other inner": lambda n, a, r: max([a], key=lambda x: -x),
    "function": prior,
    "closure": taking(1),
    "other closure": taking(2),
    "partial": functools.partial(prior, factor=2),
    "other partial": functools.partial(prior, factor=3),
    "object": Callable(1),
    "other object": Callable(2),
    "method": Callable(1).method,
    "other method": Callable(2).method,
    "builtin": math.hypot,
    "type": float,
    "mapping": {("mobilenet_v2", 0.5, 96): 1.0},
    "other mapping": {("mobilenet_v2", 0.5, 96): 2.0},
}


def test_all_are_different_and_can_be_written_down():
    known = [json.dumps(identify("prior", value)) for value in DIFFERENT.values()]
    assert len(set(known)) == len(known)


def test_equal_ones_are_the_same():
    assert identify("prior", taking(2)) == identify("prior", taking(2))
    one, other = (functools.partial(prior, factor=2) for _ in range(2))
    assert identify("prior", one) == identify("prior", other)
    pairs = {("a", 1, 2): 1, ("b", 1, 2): 2}
    assert identify("x", pairs) == identify("x", dict(reversed(pairs.items())))


def test_it_does_not_depend_on_the_process(monkeypatch):
    code = (
        "from tests.tuning.test_identity import *\n"
        "print(json.dumps([identify('x', v) for v in DIFFERENT.values()]))"
    )
    printed = set()
    for seed in ("1", "2"):  # of the order of sets
        monkeypatch.setenv("PYTHONHASHSEED", seed)
        printed.add(subprocess.check_output([sys.executable, "-c", code]))
    assert len(printed) == 1


def itself():
    def function(name, alpha, resolution):
        return function

    return function


@pytest.mark.parametrize("value", [Unpicklable(1), itself()], ids=["object", "itself"])
def test_what_cannot_be_told_apart_is_refused(value):
    with pytest.raises(UsageError, match="prior must be something that can be told"):
        identify("prior", value)
