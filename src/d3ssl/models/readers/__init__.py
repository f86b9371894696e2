"""Readers: from the feature maps of a view to a fixed number of rows. One per file."""

from d3ssl.models.readers.box import Box
from d3ssl.models.readers.cells import Cells
from d3ssl.models.readers.grid import Grid
from d3ssl.models.readers.image import Image
from d3ssl.models.readers.mask import Mask
from d3ssl.models.readers.patch import Patch
from d3ssl.models.readers.pyramid import Pyramid
from d3ssl.models.readers.reader import ROW_KINDS, Reader, ReaderConfig, RowKind
from d3ssl.models.readers.token import Token

__all__ = [
    "ROW_KINDS",
    "Box",
    "Cells",
    "Grid",
    "Image",
    "Mask",
    "Patch",
    "Pyramid",
    "Reader",
    "ReaderConfig",
    "RowKind",
    "Token",
]
