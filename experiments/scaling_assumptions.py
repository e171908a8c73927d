"""What the model of scaling rests on: hardware, and numbers that were not measured.

Pure Python. Every figure has its source, and what to run to replace it by a
measurement; `python -m experiments.scaling` has an option of each name.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

RESULTS = Path(__file__).parent / "results"


class Gpu(NamedTuple):
    """Data-sheet figures: operations a second, bytes a second, bytes; NVLink's are
    one direction. Matrix arithmetic as TensorFlow does float32: TF32 where there is."""

    flops: float
    bandwidth: float
    memory: float
    nvlink: float


GPUS = {  # NVIDIA's data sheets of the SXM models
    "v100": Gpu(15.7e12, 0.9e12, 16e9, 150e9),
    "a100": Gpu(156e12, 1.555e12, 40e9, 300e9),
    "h100": Gpu(494e12, 3.35e12, 80e9, 450e9),
}


class Link(NamedTuple):
    """Bytes a second in one direction, and seconds of a hop."""

    bandwidth: float
    hop: float


# Hops: NCCL's tuner has 2.7 to 8.5 us over a network with RDMA, 0.5 to 1.9 us over
# NVLink (src/graph/tuning.cc, hwLat, LL and LL128); TCP's is our assumption.
LINKS = {
    "25 Gbit/s": Link(25e9 / 8, 30e-6),
    "100 Gbit/s": Link(100e9 / 8, 5e-6),
    "400 Gbit/s": Link(400e9 / 8, 5e-6),
}
NVLINK_HOP = 1.9e-6


class Assumption(NamedTuple):
    """A number that was not measured on a GPU, where it is from, what measures it."""

    value: float
    source: str
    measure: str


_PIPELINE = json.loads((RESULTS / "benchmark_pipeline.json").read_text())
BENCHMARK = RESULTS / "benchmark_distribution.json"

ASSUMPTIONS: dict[str, Assumption] = {
    "flops_efficiency": Assumption(
        0.5,
        "ours; hardly matters, since the memory decides",
        "a profile of the step",
    ),
    "memory_efficiency": Assumption(
        0.6,
        "timm's RTX 3090 figures of five MobileNetV2, all within 10 %",
        "--step-ms with experiments.benchmarks.training on the GPU",
    ),
    "norm_passes": Assumption(
        17,
        "counted: what the fused kernels and the few operations around them read and "
        "write of a map; without synchronisation they make 8, Keras' operations 32",
        "--step-ms of one and of two GPUs",
    ),
    "norm_kernels": Assumption(7, "counted likewise; 2 and 20", "a profile"),
    "kernel_us": Assumption(
        10,
        "ours: TensorFlow's host starts some 100,000 kernels a second",
        "a profile of the step; --step-ms",
    ),
    "collective_us": Assumption(
        30,
        "NCCL's tuner has 4 to 10 us before the first hop; the rest is ours",
        "nccl-tests, all_reduce_perf of 4 bytes",
    ),
    "link_efficiency": Assumption(
        0.8,
        "NCCL's tuner takes 235 of an A100's 300 GB/s; the same for networks is ours",
        "nccl-tests, all_reduce_perf",
    ),
    "overlap": Assumption(
        0,
        "TensorFlow packs all gradients in one message after the backward pass",
        "a profile of the step",
    ),
    "gpus_per_machine": Assumption(8, "DGX and the clouds' largest machines", "-"),
    "cores_per_gpu": Assumption(
        12, "between 6 (p4d: 96 vCPUs) and 16 (DGX A100: 128 cores) a GPU", "lscpu"
    ),
    "images_per_core_s": Assumption(
        round(_PIPELINE["ours"]["train_images_per_s"] / _PIPELINE["about"]["cores"]),
        "measured: results/benchmark_pipeline.json, images a second by cores",
        "experiments.benchmarks.pipeline on the machine",
    ),
    "framework_gb": Assumption(
        1.5, "ours: CUDA context, cuDNN's and NCCL's buffers", "nvidia-smi"
    ),
    "checkpoint_s": Assumption(
        0.5,
        "above what results/benchmark_distribution.json measured for V2 1.0",
        "experiments.benchmarks.distribution --only checkpoints",
    ),
}

# Published images a second of one RTX 3090 (936 GB/s, 71 TFLOP/s in float16), half
# precision, batch 512, PyTorch: huggingface/pytorch-image-models,
# results/benchmark-train-amp-nhwc-pt112-cu113-rtx3090.csv.
RTX_3090 = Gpu(71e12, 0.936e12, 24e9, 0)
CHECKS = {0.35: 4789.43, 0.5: 4051.14, 0.75: 2609.91, 1.0: 2313.1, 1.4: 1637.57}


def defaults(**changes: float) -> dict[str, float]:
    """The value of every assumption."""
    return {name: each.value for name, each in ASSUMPTIONS.items()} | changes
