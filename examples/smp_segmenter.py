"""A U-Net of segmentation_models_pytorch on a backbone of d3ssl: export, load, train.

    pip install segmentation-models-pytorch
    d3ssl export run/ --to timm --out backbone.safetensors
    python examples/smp_segmenter.py backbone.safetensors --network resnet50

Any CNN of timm serves as the encoder. The images and masks below are drawn at random; put your own in their place.
"""

from __future__ import annotations

import argparse

import segmentation_models_pytorch as smp  # pyright: ignore[reportMissingImports]
import torch
from safetensors.torch import load_file
from torch import nn


def make_segmenter(weights: str, network: str, classes: int) -> nn.Module:
    """A U-Net whose encoder has the weights of the file; its decoder starts at random."""
    segmenter = smp.Unet(f"tu-{network}", encoder_weights=None, classes=classes)  # tu-: an encoder of timm
    found = segmenter.encoder.model.load_state_dict(load_file(weights), strict=False)
    assert not found.missing_keys  # what is left over lies behind the last map
    return segmenter


def main(argv: list[str] | None = None) -> list[float]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", help="what d3ssl export --to timm wrote")
    parser.add_argument("--network", default="resnet50", help="timm's name")
    parser.add_argument("--classes", type=int, default=3)
    parser.add_argument("--size", type=int, default=256, help="side of the images, px; a multiple of 32")
    parser.add_argument("--steps", type=int, default=10)
    options = parser.parse_args(argv)
    segmenter = make_segmenter(options.weights, options.network, options.classes).train()
    optimizer = torch.optim.AdamW(segmenter.parameters(), lr=1e-4)
    losses = []
    for _ in range(options.steps):
        images = torch.randn(2, 3, options.size, options.size)  # normalised
        masks = torch.randint(0, options.classes, (2, options.size, options.size))
        loss = nn.functional.cross_entropy(segmenter(images), masks)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


if __name__ == "__main__":
    print(main())  # noqa: T201
