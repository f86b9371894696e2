"""Open Images, releases V4 to V7, and the benchmark OpenImage-MINI that is chosen from it by rule."""

from d3ssl.data.open_images.build import build_benchmark
from d3ssl.data.open_images.config import BuildConfig
from d3ssl.data.open_images.download import DownloadConfig, download_images
from d3ssl.data.open_images.read import read_open_images
from d3ssl.data.open_images.verify import VerifyConfig, verify_benchmark

__all__ = [
    "BuildConfig",
    "DownloadConfig",
    "VerifyConfig",
    "build_benchmark",
    "download_images",
    "read_open_images",
    "verify_benchmark",
]
