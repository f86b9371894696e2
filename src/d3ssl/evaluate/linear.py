"""The linear probe: how much of the class a linear classifier reads from frozen features."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from threadpoolctl import ThreadpoolController
from torch import Tensor

from d3ssl.console import warn
from d3ssl.errors import InputError
from d3ssl.seeds import numpy_generator

STRENGTHS = (1.0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5)
"""L2 strengths to choose from: mean cross-entropy + ½·strength·|weights|², features standardised."""
HELD_OUT = 0.2
"""Share of the training images on which the strength is chosen."""
MAX_ITERATIONS = 300
"""Of L-BFGS."""
_SMALL = 5_000_000
"""Values (objects × features) up to which one thread fits: more of them wait for each other longer than they work."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearProbe:
    """A logistic regression on standardised features."""

    mean: Float64[np.ndarray, "D"]
    std: Float64[np.ndarray, "D"]
    model: LogisticRegression
    strength: float
    """The chosen L2 strength."""

    def predict(self, x: Float[Tensor, "M D"]) -> Int64[Tensor, "M"]:
        """The most probable label of every object."""
        standardised = (x.cpu().numpy().astype(np.float64) - self.mean) / self.std
        return torch.from_numpy(np.asarray(self.model.predict(standardised), dtype=np.int64))


def linear_probe(
    x: Float[Tensor, "N D"], y: Int64[Tensor, "N"], image: Int64[Tensor, "N"], *, seed: int = 0
) -> LinearProbe:
    """Fit a multinomial logistic regression; its L2 strength is the one that does best on a fifth of the training
    images (whole images, so that objects of one image are never on both sides; of equals the strongest), and the
    final fit is on all of them.

    Args:
        x: features; each is standardised by its mean and standard deviation here (a constant one counts for nothing).
        y: labels, at least two different ones.
        image: number of the image that the object is in.
        seed: decides which images are held out.

    Raises:
        InputError: all objects have one class, or fewer than five images hold objects.
    """
    labels, pictures = y.cpu().numpy(), np.unique(image.cpu().numpy())
    if len(np.unique(labels)) < 2 or len(pictures) < 5:
        problem = f"{len(pictures)} training images with objects of {len(np.unique(labels))} classes are too few"
        raise InputError(problem, remedy="a linear probe takes at least 5 images and 2 classes; give more images.")
    values = x.cpu().numpy().astype(np.float64)
    mean, std = values.mean(axis=0), values.std(axis=0)
    std[std <= 1e-6 * np.abs(values).max(axis=0)] = np.inf  # constant up to float32's rounding
    values = (values - mean) / std
    held = numpy_generator(seed, "linear probe").permutation(pictures)[: max(1, round(HELD_OUT * len(pictures)))]
    outside = np.isin(image.cpu().numpy(), held)
    scores = [0.0] * len(STRENGTHS)
    if len(np.unique(labels[~outside])) >= 2:
        path = _fit_path(values[~outside], labels[~outside], STRENGTHS)
        scores = [float(np.mean(model.predict(values[outside]) == labels[outside])) for model in path]
    best = int(np.argmax(scores))
    model = _fit_path(values, labels, STRENGTHS[: best + 1])[-1]
    if int(np.max(model.n_iter_)) >= MAX_ITERATIONS:
        warn(f"the linear probe (L2 {STRENGTHS[best]:g}) has not quite converged in {MAX_ITERATIONS} iterations")
    return LinearProbe(mean=mean, std=std, model=model, strength=STRENGTHS[best])


def _fit_path(
    x: Float64[np.ndarray, "N D"], y: Int64[np.ndarray, "N"], strengths: tuple[float, ...]
) -> list[LogisticRegression]:
    """A fit for every strength, each begun where the stronger one before it ended."""
    models: list[LogisticRegression] = []
    threads = ThreadpoolController()  # looks through all loaded libraries, so once
    for strength in strengths:
        model = LogisticRegression(C=1 / (strength * len(x)), max_iter=MAX_ITERATIONS, tol=1e-3, warm_start=True)
        if models:
            model.coef_, model.intercept_, model.classes_ = models[-1].coef_, models[-1].intercept_, models[-1].classes_
        with warnings.catch_warnings(), threads.limit(limits=1 if x.size <= _SMALL else None):
            warnings.simplefilter("ignore", ConvergenceWarning)  # the caller looks at the fit it uses
            models.append(model.fit(x, y))
    return models
