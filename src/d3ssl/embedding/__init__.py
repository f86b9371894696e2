"""Features of many images or regions in a Parquet file."""

from d3ssl.embedding.config import EmbedConfig
from d3ssl.embedding.run import embed

__all__ = ["EmbedConfig", "embed"]
