"""Semantic segmentation from a backbone's maps: linear head, in-context retrieval, fine-tuning."""

from d3ssl.evaluate.segmentation.config import SegmentationConfig
from d3ssl.evaluate.segmentation.run import SegmentationTask, evaluate_segmentation
from d3ssl.evaluate.splits import open_semantic

__all__ = [
    "SegmentationConfig",
    "SegmentationTask",
    "evaluate_segmentation",
    "open_semantic",
]
