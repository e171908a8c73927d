"""What the published networks lead one to expect of the others.

For each network the logit of slim's ImageNet top-1 is a quadratic in the logarithms
of alpha and rho, fitted to all published points; it meets them within 0.4 points
(V1) and 1.3 points (V2), and rises with alpha and rho far beyond them. On other data
the level differs, the order less so: searches use only the order and the spacing.
"""

from __future__ import annotations

import functools
import math

import numpy as np

from keras_mobilenets.architecture.arguments import NATIVE_RESOLUTION
from keras_mobilenets.architecture.published import published
from keras_mobilenets.architecture.shapes import Resolution, pixels


def _terms(alpha: float, resolution: Resolution) -> tuple[float, ...]:
    side = math.sqrt(pixels(resolution))
    a, r = math.log(alpha), math.log(side / NATIVE_RESOLUTION)
    return 1.0, a, r, a * a, r * r, a * r


@functools.cache
def _coefficients(name: str) -> np.ndarray:
    points = [point for point in published() if point.name == name]
    terms = np.array([_terms(point.alpha, point.resolution) for point in points])
    top1 = np.array([point.top1 / 100 for point in points])
    return np.linalg.lstsq(terms, np.log(top1 / (1 - top1)), rcond=None)[0]


def published_prior(name: str, alpha: float, resolution: Resolution) -> float:
    """The top-1 to expect on ImageNet, 0 to 1, of a network published or not.

    What is not square counts as the square of as many pixels.

    >>> round(published_prior("mobilenet_v1", 1.0, 224), 2)  # published: 0.709
    0.71
    """
    logit = float(np.dot(_terms(alpha, resolution), _coefficients(name)))
    return 1 / (1 + math.exp(-logit))
