"""Faster R-CNN of torchvision on a backbone of d3ssl: export, load, train.

    d3ssl export run/ --to torchvision-detector --out body.safetensors
    python examples/torchvision_detector.py body.safetensors --network resnet50

The images and boxes below are drawn at random; put your own data set in their place.
"""

from __future__ import annotations

import argparse

import torch
from safetensors.torch import load_file
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone


def make_detector(body: str, network: str, classes: int, size: int) -> FasterRCNN:
    """A detector whose ResNet has the weights of the file; its pyramid and heads start at random."""
    backbone = resnet_fpn_backbone(backbone_name=network, weights=None, trainable_layers=5)
    detector = FasterRCNN(backbone, num_classes=classes + 1, min_size=size, max_size=2 * size)  # 0 is the background
    found = detector.load_state_dict(load_file(body), strict=False)
    assert not found.unexpected_keys
    assert not [key for key in found.missing_keys if key.startswith("backbone.body.")]
    return detector


def draw_batch(count: int, size: int, classes: int) -> tuple[list[torch.Tensor], list[dict[str, torch.Tensor]]]:
    """Images (3, H, W) in 0..1, and for each its boxes (xyxy, px) and their classes, from 1."""
    images = [torch.rand(3, size, size) for _ in range(count)]
    box = torch.tensor([[0.2, 0.2, 0.8, 0.7]]) * size
    return images, [{"boxes": box, "labels": torch.randint(1, classes + 1, (1,))} for _ in range(count)]


def main(argv: list[str] | None = None) -> list[float]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("body", help="what d3ssl export --to torchvision-detector wrote")
    parser.add_argument("--network", default="resnet50")
    parser.add_argument("--classes", type=int, default=3)
    parser.add_argument("--size", type=int, default=320, help="shorter side of the images, px")
    parser.add_argument("--steps", type=int, default=10)
    options = parser.parse_args(argv)
    detector = make_detector(options.body, options.network, options.classes, options.size).train()
    optimizer = torch.optim.AdamW(detector.parameters(), lr=1e-4)
    losses = []
    for _ in range(options.steps):
        images, targets = draw_batch(2, options.size, options.classes)
        loss = torch.stack(list(detector(images, targets).values())).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


if __name__ == "__main__":
    print(main())  # noqa: T201
