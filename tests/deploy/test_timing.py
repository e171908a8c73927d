"""Turns of a clock that stands still between calls, and a process that is real."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_mobilenets.deploy import timing
from keras_mobilenets.deploy.classifier import describe
from keras_mobilenets.deploy.formats import FORMATS
from keras_mobilenets.deploy.forms import (
    FORMS,
    choose,
    scatter,
    subject_of,
    write_forms,
)
from keras_mobilenets.errors import UsageError
from keras_mobilenets.models import build

ROOT = Path(__file__).parents[2]


class Clock:
    """Moves only while something runs; knows what ran, in order."""

    def __init__(self):
        self.now, self.ran = 0.0, []

    def __call__(self):
        return self.now

    def runs(self, **seconds):
        def run(name):
            self.ran.append(name)
            self.now += seconds[name]

        return {name: lambda name=name: run(name) for name in seconds}


def turns(clock, runs, seconds):
    """Seconds of the calls of each; the processor works for half of them."""
    calls = timing.take_turns(runs, seconds, clock, lambda: clock.now / 2)
    assert all(
        worked == pytest.approx(took / 2)
        for of in calls.values()
        for took, worked in of
    )
    return {name: [took for took, _ in of] for name, of in calls.items()}


def test_each_gets_the_same_time_in_turns():
    clock = Clock()
    calls = turns(clock, clock.runs(fast=0.015, slow=0.06), 6)
    # Of seven calls a turn six count, of two one.
    assert len(calls["fast"]) == pytest.approx(6 * 57, abs=6)
    assert len(calls["slow"]) == pytest.approx(50, abs=1)
    assert set(np.round(calls["fast"], 9)) == {0.015}
    half = len(clock.ran) // 2
    for name in ("fast", "slow"):  # as much of each early as late
        early = clock.ran[:half].count(name)
        assert early == pytest.approx(clock.ran[half:].count(name), rel=0.1)


def test_the_first_call_of_a_turn_is_not_counted():
    """A call that comes after the other's finds caches that are cold."""
    clock = Clock()

    def run(name):
        clock.now += 0.01 if clock.ran[-1:] == [name] else 0.03
        clock.ran.append(name)

    calls = turns(clock, {n: lambda n=n: run(n) for n in "ab"}, 2)
    assert set(np.round(calls["a"] + calls["b"], 9)) == {0.01}


def test_a_slow_one_is_called_a_few_times():
    clock = Clock()
    calls = turns(clock, clock.runs(fast=0.01, slow=60.0), 1)
    assert len(calls["slow"]) == timing.FEWEST
    assert len(calls["fast"]) < 200


def test_figures():
    calls = [(0.001 * n, 0.002 * n) for n in range(1, 12)]
    assert timing.figures(calls) == {
        "calls": 11,
        "median_ms": 6.0,
        "p10_ms": 2.0,
        "p90_ms": 10.0,
        "least_ms": 1.0,
        "cpu_ms": 12.0,
        "least_cpu_ms": 2.0,
    }


@pytest.fixture(scope="module")
def subject():
    network = {"alpha": 0.25, "resolution": 32, "classes": 5}
    model = scatter(build("mobilenet_v1", **network))
    logits = model.get_layer("logits").kernel
    logits.assign(logits * 300)
    return subject_of(model, "mobilenet_v1", 0.25)


@pytest.fixture(scope="module")
def files(subject, tmp_path_factory):
    chosen = choose(subject, ["keras.applications", "fused", "float32", "int8"])
    paths = write_forms(subject, chosen, tmp_path_factory.mktemp("forms"), print)
    return {form: (chosen[form].runtime, path) for form, path in paths.items()}


@pytest.mark.parametrize("batch", [1, 3])
def test_every_form_is_the_same_network(subject, files, batch):
    assert list(files) == ["keras.applications", "fused", "float32", "int8"]
    images = subject.images[:batch]
    expected = np.array(subject.model(images))
    assert expected.std(axis=-1).min() > 0.01
    for form, (runtime, path) in files.items():
        answer = timing.RUNTIMES[runtime](str(path), images, 1)()
        if form in ("float32", "int8"):  # logits and probabilities
            answer = min(answer, key=lambda given: np.abs(given - expected).max())
        apart = 0.1 if form == "int8" else 1e-5
        np.testing.assert_allclose(answer, expected, atol=apart, err_msg=form)


def test_the_forms_that_there_are(subject):
    with_onnx = {"onnx"} if find_spec("onnxruntime") else set()
    assert set(FORMS) - set(choose(subject, None)) == {"onnx"} - with_onnx
    varied = subject._replace(name=None)
    assert "keras.applications" not in choose(varied, None)
    with pytest.raises(UsageError, match="keras.applications has a network without"):
        choose(varied, ["keras", "keras.applications"])


def test_onnx_where_it_is_not_installed(subject, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert "onnx" not in choose(subject, None)
    with pytest.raises(UsageError, match=r"pip install 'keras_mobilenets\[onnx\]'"):
        choose(subject, ["onnx"])


@pytest.mark.parametrize("suffix", [".onnx", ""])
@pytest.mark.parametrize("input", ["float32", "uint8"])
def test_other_files_of_export(subject, tmp_path, suffix, input):
    if suffix:
        pytest.importorskip("onnxruntime")
    path = tmp_path / f"file{suffix}"
    about = describe(list("abcde"), "softmax", None, input, None)
    FORMATS[suffix].write(path, subject.folded, about, subject.images)
    answer = timing.RUNTIMES[suffix](str(path), subject.images[:2], 1)()
    answers = answer.values() if isinstance(answer, dict) else answer
    expected = np.array(subject.model(subject.images[:2]))
    apart = min(np.abs(given - expected).max() for given in answers)
    assert apart < (0.05 if input == "uint8" else 1e-4)


def test_kernels_keep_the_size_of_what_goes_through(subject):
    """And so no number is denormal, though the network is deep."""
    inner = [layer.output for layer in subject.model.layers if "_relu" in layer.name]
    for output in keras.Model(subject.model.input, inner)(subject.images[:2]):
        assert 1e-3 < np.array(output).std() < 1e3


def test_a_process_measures(subject, files):
    heard = []
    found = timing.time_files(
        {form: files[form] for form in ("fused", "int8")},
        subject.images,
        batches=(1, 2),
        threads=1,
        seconds=0.01,
        say=heard.append,
    )
    assert {form: list(of) for form, of in found.items()} == dict.fromkeys(
        ("fused", "int8"), [1, 2]
    )
    for of in found["int8"].values():
        assert of["calls"] >= timing.FEWEST
        assert 0 < of["least_ms"] <= of["p10_ms"] <= of["median_ms"] <= of["p90_ms"]
    assert [text.split(",")[0] for text in heard] == [
        "loading for batches of 1",
        "measuring batches of 1",
        "loading for batches of 2",
        "measuring batches of 2",
    ]


CALLER = """
import json, os, subprocess, sys
from keras_mobilenets.deploy import timing
files = {"float32": json.loads(sys.argv[1])}
plan = {"files": files, "images": sys.argv[2]}
plan |= {"batches": [1], "threads": 1, "seconds": 3600}
process = timing._start(plan, subprocess.DEVNULL)
for line in process.stdout:
    if "measuring" in line:
        print(process.pid, flush=True)
        os._exit(0)
"""


def test_a_process_ends_with_its_caller(subject, files, tmp_path):
    np.save(tmp_path / "images.npy", subject.images)
    runtime, path = files["float32"]
    arguments = [json.dumps([runtime, str(path)]), str(tmp_path / "images.npy")]
    done = subprocess.run(
        [sys.executable, "-c", CALLER, *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    pid = int(done.stdout)
    for _ in range(100):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().split()[2]
        except FileNotFoundError:
            return
        if state == "Z":  # ended, and nobody has asked how
            return
        time.sleep(0.1)
    os.kill(pid, signal.SIGKILL)
    pytest.fail("it runs on")


def test_a_process_that_ends_early(subject, tmp_path):
    (tmp_path / "x.tflite").write_bytes(b"no file of LiteRT")
    with pytest.raises(RuntimeError, match="status 1; it said last: ValueError"):
        timing.time_files(
            {"x": (".tflite", tmp_path / "x.tflite")},
            subject.images,
            batches=(1,),
            threads=1,
            seconds=0.01,
            say=print,
        )


@pytest.mark.parametrize(
    ("status", "last"), [(-9, b""), (1, b"numpy.MemoryError: Unable to allocate 9 TiB")]
)
def test_too_large_a_batch(status, last):
    failure = timing._failure(status, io.BytesIO(b"before\n" + last))
    assert isinstance(failure, UsageError)
    assert "batches must be such as fit into the memory" in str(failure)
    assert last.decode() in str(failure)
