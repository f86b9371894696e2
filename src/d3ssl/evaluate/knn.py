"""O-KNN: objects named by their nearest neighbours among labelled objects."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, Int64
from torch import Tensor
from torch.nn.functional import normalize

from d3ssl.errors import InputError

_CHUNK = 1024


def object_knn(
    train_x: Float[Tensor, "N D"] | Float[np.ndarray, "N D"],
    train_y: Int[Tensor, "N"] | Int[np.ndarray, "N"],
    val_x: Float[Tensor, "M D"] | Float[np.ndarray, "M D"],
    k: int = 20,
    temperature: float = 0.07,
) -> Int64[Tensor, "M"] | Int64[np.ndarray, "M"]:
    """Label every object by a weighted vote of its k nearest training objects (weighted k-NN of InstDisc,
    arXiv 1805.01978; the parameters are those of arXiv 2111.07832).

    A neighbour with cosine similarity s votes for its label with weight exp(s / temperature). Of labels with equal
    votes the smallest wins. Features are compared as they are; ``evaluate_objects`` centres them first.

    Args:
        train_x: features of the labelled objects, any scale.
        train_y: their labels, any integers.
        val_x: features of the objects to name.
        k: neighbours; where there are fewer training objects, all of them vote.

    Returns:
        Labels (int64), as a tensor or as an array, whichever ``val_x`` is.

    Raises:
        InputError: no training objects, labels that are no integers or not as many, or k or temperature out of range.
    """
    if len(train_x) == 0:
        raise InputError("no training objects for k-NN", remedy="give at least one.")
    if np.asarray(train_y[:1]).dtype.kind not in "iu":
        remedy = "number the classes: names, train_y = numpy.unique(labels, return_inverse=True)."
        raise InputError(f"the labels for k-NN are {_kind(train_y)}, not integers", remedy=remedy)
    if len(train_y) != len(train_x):
        raise InputError(f"{len(train_x)} training objects with {len(train_y)} labels", remedy="give each one a label.")
    if k < 1 or temperature <= 0:
        remedy = "k is at least 1, the temperature above 0."
        raise InputError(f"k-NN with k = {k}, temperature = {temperature} is impossible", remedy=remedy)
    train = normalize(torch.as_tensor(train_x).float(), dim=1)
    val = normalize(torch.as_tensor(val_x).to(train), dim=1)
    labels, train_label = torch.unique(torch.as_tensor(train_y).to(train.device), return_inverse=True)
    k = min(k, len(train))
    chosen = torch.empty(len(val), dtype=torch.int64, device=train.device)
    for start in range(0, len(val), _CHUNK):
        similarity, neighbour = (val[start : start + _CHUNK] @ train.T).topk(k, dim=1)
        votes = similarity.new_zeros(len(similarity), len(labels), dtype=torch.float64)
        # Less the greatest exponent: the same winner, and no overflow at low temperatures.
        weights = ((similarity - similarity[:, :1]).double() / temperature).exp()
        votes.scatter_add_(1, train_label[neighbour], weights)
        chosen[start : start + _CHUNK] = votes.argmax(dim=1)
    found = labels[chosen].long()
    return found.cpu().numpy() if isinstance(val_x, np.ndarray) else found.to(val_x.device)


def _kind(labels: Any) -> str:
    found = np.asarray(labels[:1])
    return "texts" if found.dtype.kind in "US" else f"of the type {found.dtype}"
