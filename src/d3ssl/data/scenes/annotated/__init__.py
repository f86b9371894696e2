"""Out-of-context scenes: objects of annotated photographs on backgrounds and beside neighbours they never had."""

from d3ssl.data.scenes.annotated.material import Material, gather
from d3ssl.data.scenes.annotated.sides import Side, open_sides, sides_digest

__all__ = ["Material", "Side", "gather", "open_sides", "sides_digest"]
