"""Objects found: a detector fine-tuned from a backbone, measured as COCO does."""

from d3ssl.evaluate.detection.coco_eval import STATISTICS, CocoTruth, Detections
from d3ssl.evaluate.detection.config import DetectionConfig
from d3ssl.evaluate.detection.network import Detector, build_detector
from d3ssl.evaluate.detection.run import DetectionTask, evaluate_detection

__all__ = [
    "STATISTICS",
    "CocoTruth",
    "DetectionConfig",
    "DetectionTask",
    "Detections",
    "Detector",
    "build_detector",
    "evaluate_detection",
]
