"""How long files of networks take, in turns, in a process of its own.

TensorFlow is told its number of threads before it starts, or never; so the process that
measures is a new one, which says that first. All that is compared is run by that one
process, in turn: a machine whose speed drifts, or on which others work, treats all
alike.

    python -m keras_mobilenets.deploy.timing PLAN
"""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from keras_mobilenets.errors import UsageError

TURN = 0.1  # seconds
FEWEST = 3  # calls, however long they take
KILLED = 9  # by this signal, as the system does where memory runs out
Run = Callable[[], Any]  # one batch through a network


def _of_keras(path: str, images: np.ndarray, threads: int) -> Run:
    import keras
    import tensorflow as tf

    model = keras.saving.load_model(path, compile=False)
    spec = tf.TensorSpec(images.shape, "float32")
    function = tf.function(lambda x: model(x, training=False), autograph=False)
    traced = function.get_concrete_function(spec)
    return lambda: np.asarray(traced(tf.constant(images)))


def _of_litert(path: str, images: np.ndarray, threads: int) -> Run:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=path, num_threads=threads)
    (given,) = interpreter.get_input_details()
    interpreter.resize_tensor_input(given["index"], images.shape)
    interpreter.allocate_tensors()
    images = _like(images, given["dtype"])
    outputs = [output["index"] for output in interpreter.get_output_details()]

    def run() -> Any:
        interpreter.set_tensor(given["index"], images)
        interpreter.invoke()
        return [interpreter.get_tensor(output) for output in outputs]

    return run


def _of_onnx(path: str, images: np.ndarray, threads: int) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.load_model_format", "ONNX")
    providers = ["CPUExecutionProvider"]
    session = onnxruntime.InferenceSession(path, options, providers=providers)
    (given,) = session.get_inputs()
    pixels = given.type == "tensor(uint8)"
    images = _like(images, np.uint8 if pixels else np.float32)
    return lambda: session.run(None, {given.name: images})


def _of_saved_model(path: str, images: np.ndarray, threads: int) -> Run:
    import tensorflow as tf

    run = tf.saved_model.load(path).signatures["classify"]
    ((name, given),) = run.structured_input_signature[1].items()
    images = _like(images, given.dtype.as_numpy_dtype)
    return lambda: {k: v.numpy() for k, v in run(**{name: tf.constant(images)}).items()}


def _like(images: np.ndarray, dtype: Any) -> np.ndarray:
    """Images for a file that takes them, in [-1, 1], or as pixels, in 0..255."""
    if dtype == np.float32:
        return images
    return ((images + 1) * 127.5).astype(dtype)


KERAS = ".keras"  # what is no format of `export`
# What runs a file, by the suffix of its kind: (path, images of a batch, threads).
RUNTIMES: dict[str, Callable[[str, np.ndarray, int], Run]] = {
    KERAS: _of_keras,
    ".tflite": _of_litert,
    ".onnx": _of_onnx,
    "": _of_saved_model,
}


def take_turns(
    runs: Mapping[str, Run],
    seconds: float,
    clock: Callable[[], float] = time.perf_counter,
    processor: Callable[[], float] = time.process_time,
) -> dict[str, list[tuple[float, float]]]:
    """Seconds of the calls of each, and of the processor; the next is who had least.

    Each gets `seconds`, in turns of TURN of them. The first call of a turn finds caches
    as the others left them, and is counted only where it is the only one.

    >>> {name: len(calls) for name, calls in take_turns(runs, seconds=2).items()}
    {'keras': 96, 'int8': 310}
    """
    for run in runs.values():  # the first call allocates
        run()
    calls: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
    spent = dict.fromkeys(runs, 0.0)
    unfinished = list(runs)
    while unfinished:
        name = min(unfinished, key=lambda name: spent[name])
        turn: list[tuple[float, float]] = []
        until = spent[name] + TURN
        while spent[name] < until:
            start, worked = clock(), processor()
            runs[name]()
            turn.append((clock() - start, processor() - worked))
            spent[name] += turn[-1][0]
        calls[name] += turn[1:] or turn
        if spent[name] >= seconds and len(calls[name]) >= FEWEST:
            unfinished.remove(name)
    return calls


def figures(calls: list[tuple[float, float]]) -> dict[str, Any]:
    """What is said of the seconds of some calls, in milliseconds.

    "cpu_ms" and "least_cpu_ms" are of what the processor worked, in all threads: near
    the time of a call in one thread on a machine where nobody else works.

    >>> figures([(0.001, 0.001), (0.002, 0.001), (0.009, 0.001)])["median_ms"]
    2.0
    """
    times, worked = zip(*calls, strict=True)
    low, median, high = (float(x) for x in np.percentile(times, (10, 50, 90)))
    shown = {"median_ms": median, "p10_ms": low, "p90_ms": high, "least_ms": min(times)}
    shown |= {"cpu_ms": float(np.median(worked)), "least_cpu_ms": min(worked)}
    return {
        "calls": len(calls),
        **{name: round(1000 * value, 3) for name, value in shown.items()},
    }


def time_files(
    files: Mapping[str, tuple[str, pathlib.Path]],
    images: np.ndarray,
    *,
    batches: tuple[int, ...],
    threads: int,
    seconds: float,
    say: Callable[[str], None],
) -> dict[str, dict[int, dict[str, Any]]]:
    """Figures of each file at each batch size, on the processor.

    Args:
        files: name -> (a key of RUNTIMES, path).
        images: float32 [n, height, width, channels] in [-1, 1].
        seconds: of each file at each batch size.
        say: hears how far it is.

    Raises:
        UsageError: a batch size is too much for this machine.
    """
    with tempfile.TemporaryDirectory() as folder:
        given = pathlib.Path(folder, "images.npy")
        np.save(given, images)
        plan = {
            "files": {name: (kind, str(file)) for name, (kind, file) in files.items()},
            "images": os.fspath(given),
            "batches": batches,
            "threads": threads,
            "seconds": seconds,
        }
        with tempfile.TemporaryFile() as errors:
            process = _start(plan, errors)
            try:
                found = _listen(process, say)
                if found is None:
                    raise _failure(process.wait(), errors)
            finally:
                process.kill()
                process.wait()
    return {
        name: {int(batch): of for batch, of in each.items()}
        for name, each in found.items()
    }


def _start(plan: dict[str, Any], errors: Any) -> subprocess.Popen:
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(os.path.abspath(entry) for entry in sys.path),
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "CUDA_VISIBLE_DEVICES": "-1",  # files run on the processor, and so all do
    }
    return subprocess.Popen(
        [sys.executable, "-m", __name__, json.dumps(plan)],
        stdin=subprocess.PIPE,  # its end says that the caller is gone
        stdout=subprocess.PIPE,
        stderr=errors,
        text=True,
        env=environment,
    )


def _listen(process: subprocess.Popen, say: Callable[[str], None]) -> Any:
    """What the process has found; None where it ends before."""
    assert process.stdin is not None
    assert process.stdout is not None
    with process.stdin, process.stdout as lines:
        for line in lines:
            answer = json.loads(line)
            if "found" in answer:
                return answer["found"]
            say(answer["said"])
    return None


def _failure(status: int, errors: Any) -> Exception:
    errors.seek(0)
    lines = errors.read().decode(errors="replace").strip().splitlines() or ["nothing"]
    if status == -KILLED or "Memory" in lines[-1]:
        return UsageError(
            "batches must be such as fit into the memory of this machine; the process "
            f"that measures ended ({lines[-1]}): give smaller ones"
        )
    return RuntimeError(
        f"the process that measures ended with status {status}; it said last: "
        f"{lines[-1]}"
    )


def _end_with_caller() -> None:
    sys.stdin.read()
    os._exit(1)


def _measure(plan: dict[str, Any]) -> None:
    """What the process does: a line of JSON for each thing it has to say."""
    threading.Thread(target=_end_with_caller, daemon=True).start()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # of libraries

    def tell(**answer: Any) -> None:
        print(json.dumps(answer), file=answers, flush=True)

    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(plan["threads"])
    tf.config.threading.set_inter_op_parallelism_threads(1)
    images = np.load(plan["images"])
    found: dict[str, dict[int, Any]] = {name: {} for name in plan["files"]}
    for batch in plan["batches"]:
        tell(said=f"loading for batches of {batch}")
        given = np.resize(images, (batch, *images.shape[1:]))
        runs = {
            name: RUNTIMES[kind](file, given, plan["threads"])
            for name, (kind, file) in plan["files"].items()
        }
        expected = plan["seconds"] * len(runs)
        tell(said=f"measuring batches of {batch}, {expected:.3g} s or more")
        for name, calls in take_turns(runs, plan["seconds"]).items():
            found[name][batch] = figures(calls)
    tell(found=found)


if __name__ == "__main__":
    _measure(json.loads(sys.argv[1]))
