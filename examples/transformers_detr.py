"""DETR of transformers on a backbone of d3ssl: export, load, train. Needs: pip install 'd3ssl[hf]' scipy

    d3ssl export run/ --to hf --out folder/
    python examples/transformers_detr.py folder/

The images and boxes below are drawn at random; put your own data set in their place. Other detectors of
transformers (RT-DETR, Deformable DETR, Mask2Former) have a ``backbone_config`` too; only DETR was tried.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from transformers import (  # pyright: ignore[reportMissingImports]
    DetrConfig,
    DetrForObjectDetection,
    TimmBackbone,
    TimmBackboneConfig,
)


def make_detr(folder: Path, classes: int, **options: Any) -> DetrForObjectDetection:
    """A DETR whose backbone has the weights of the folder; everything behind it starts at random."""
    backbone: Any = TimmBackbone.from_pretrained(f"local-dir:{folder}", out_indices=[-1])
    body_options: dict[str, Any] = {"backbone": f"local-dir:{folder}", "out_indices": [-1]}
    all_options = {"backbone_config": TimmBackboneConfig(**body_options), "num_labels": classes} | options
    detr = DetrForObjectDetection(DetrConfig(**all_options))
    body: Any = detr.model.backbone.model
    found = body.load_state_dict(backbone._backbone.state_dict(), strict=False)
    assert not found.missing_keys
    assert all(key.endswith("num_batches_tracked") for key in found.unexpected_keys)  # DETR freezes batch norms
    return detr


def draw_batch(count: int, size: int, classes: int) -> tuple[torch.Tensor, list[dict[str, torch.Tensor]]]:
    """Normalised images (B, 3, H, W), and for each its boxes (centre, width, height; 0..1) and their classes."""
    box = torch.tensor([[0.5, 0.45, 0.6, 0.5]])
    labels = [{"class_labels": torch.randint(0, classes, (1,)), "boxes": box} for _ in range(count)]
    return torch.randn(count, 3, size, size), labels


def main(argv: list[str] | None = None) -> list[float]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="what d3ssl export --to hf wrote")
    parser.add_argument("--classes", type=int, default=3)
    parser.add_argument("--size", type=int, default=320, help="side of the images, px")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--layers", type=int, default=6, help="of the encoder, and as many of the decoder")
    options = parser.parse_args(argv)
    layers = {"encoder_layers": options.layers, "decoder_layers": options.layers}
    detr = make_detr(options.folder, options.classes, **layers).train()
    optimizer = torch.optim.AdamW((own for own in detr.parameters() if own.requires_grad), lr=1e-4)
    losses = []
    for _ in range(options.steps):
        images, labels = draw_batch(2, options.size, options.classes)
        loss = detr(pixel_values=images, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


if __name__ == "__main__":
    print(main())  # noqa: T201
