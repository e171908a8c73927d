"""A spiral through ReLU in n dimensions, and back: drawn at random, and trained.

What MobileNetV2's figure 1 shows; `v2_figure_1` measures and draws it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

POINTS, TURNS = 1000, 2.5  # read off the figure: there is no formula
DIRECTIONS = 1000

TRAINED_SEEDS, STEPS, RATE = 20, 3000, 1e-2  # Adam, all points in each step
BETAS, EPSILON = (0.9, 0.999), 1e-7


def spiral(points: int = POINTS) -> np.ndarray:
    """Archimedes' spiral from the centre to radius 1: [2, points]."""
    angle = np.linspace(0, 2 * np.pi * TURNS, points)
    radius = angle / angle[-1]
    return radius * np.array([np.cos(angle), np.sin(angle)])


def relative_error(decoded: np.ndarray, x: np.ndarray) -> Any:
    """|x' - x| / |x| over all points; `decoded` may be a stack of them."""
    return np.linalg.norm(decoded - x, axis=(-2, -1)) / np.linalg.norm(x)


def draw(n: int, seed: int) -> np.ndarray:
    """T: [n, 2] standard normal numbers."""
    return np.random.default_rng((seed, n)).standard_normal((n, 2))


def decode(t: np.ndarray, x: np.ndarray) -> dict[str, np.ndarray]:
    """The spiral after ReLU(T x) and each of the three ways back."""
    y = np.maximum(t @ x, 0)
    plain = np.linalg.pinv(t) @ y
    best = np.linalg.lstsq(y.T, x.T, rcond=None)[0].T
    return {
        "plain inverse": plain,
        "scaled inverse": 2 * plain,
        "linear decoder": best @ y,
    }


def injective(t: np.ndarray) -> float:
    """The share of directions with two units on, or more."""
    angle = np.linspace(0, 2 * np.pi, DIRECTIONS, endpoint=False)
    on = t @ np.array([np.cos(angle), np.sin(angle)]) > 0
    return float((on.sum(axis=0) >= 2).mean())


def train(
    n: int, relu: bool, bias: bool, seeds: int = TRAINED_SEEDS, steps: int = STEPS
) -> tuple[np.ndarray, np.ndarray]:
    """Autoencoders of 2, n and 2 units, one a seed: (spirals, errors) after training.

    Adam on the mean squared error, at Keras' start values (Glorot's uniform kernels,
    biases of 0). All seeds are trained side by side, along the first axis.
    """
    x = spiral()
    limit = np.sqrt(6 / (2 + n))
    rngs = [np.random.default_rng((seed, n)) for seed in range(seeds)]

    def start(*shape: int) -> np.ndarray:
        return np.array([rng.uniform(-limit, limit, shape) for rng in rngs])

    weights = [
        start(n, 2),
        start(2, n),
        np.zeros((seeds, n, 1)),
        np.zeros((seeds, 2, 1)),
    ]
    trained = weights if bias else weights[:2]
    first, second = ([np.zeros_like(w) for w in trained] for _ in range(2))

    def forward() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        encode, decode, encode_bias, decode_bias = weights
        on = encode @ x + encode_bias
        hidden = np.maximum(on, 0) if relu else on
        return on, hidden, decode @ hidden + decode_bias

    for step in range(1, steps + 1):
        on, hidden, decoded = forward()
        output = (decoded - x) / x.size * 2
        inner = weights[1].swapaxes(1, 2) @ output
        if relu:
            inner = inner * (on > 0)
        gradients = [inner @ x.T, output @ hidden.swapaxes(1, 2)]
        gradients += [g.sum(axis=2, keepdims=True) for g in (inner, output)]
        rate = RATE * np.sqrt(1 - BETAS[1] ** step) / (1 - BETAS[0] ** step)
        for w, g, m, v in zip(trained, gradients, first, second, strict=False):
            m += (1 - BETAS[0]) * (g - m)
            v += (1 - BETAS[1]) * (g * g - v)
            w -= rate * m / (np.sqrt(v) + EPSILON)
    decoded = forward()[-1]
    return decoded, relative_error(decoded, x)
