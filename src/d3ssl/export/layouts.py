"""Key layouts of ResNets in tools that need not be installed: verified by names and shapes."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor

from d3ssl.errors import D3sslError, first_names
from d3ssl.export.resnets import Layer, layers, resnet_of
from d3ssl.export.target import Verified
from d3ssl.models.backbone import Backbone

NORM = ("weight", "bias", "running_mean", "running_var")


def verify_layout(
    found: Mapping[str, Tensor], backbone: Backbone, names: Callable[[Layer], tuple[str, str]], tool: str
) -> Verified:
    """Compare names and shapes with those that the tool's own network of this depth has.

    Args:
        names: of a layer's convolution and of its batch norm in the tool.

    Raises:
        D3sslError: a name is missing or left over, or a shape is another.
    """
    wanted: dict[str, tuple[int, ...]] = {}
    for layer in layers(resnet_of(backbone), backbone.in_channels):
        convolution, norm = names(layer)
        wanted[f"{convolution}.weight"] = layer.shape
        wanted |= {f"{norm}.{part}": layer.shape[:1] for part in NORM}
    shapes = {key: tuple(value.shape) for key, value in found.items() if not key.endswith("num_batches_tracked")}
    wrong = sorted({key for key, _ in shapes.items() ^ wanted.items()})
    if wrong:
        remedy = "nothing was kept; this is a fault of d3ssl: please report it."
        raise D3sslError(f"{len(wrong)} keys or shapes are not {tool}'s: {first_names(wrong)}", remedy=remedy)
    return Verified(how=f"{len(wanted)} keys and shapes are {tool}'s published layout; {tool} itself was not run")
