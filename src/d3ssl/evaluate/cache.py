"""Features kept on disk: found again as long as weights, images, annotations and options are the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import safetensors
import safetensors.torch
from safetensors import safe_open

from d3ssl.console import say, warn
from d3ssl.data.image_set import ImageSet
from d3ssl.data.place import changed_at
from d3ssl.distributed import barrier, rank
from d3ssl.evaluate.features import ObjectFeatures, extract_objects
from d3ssl.files import digest, write_atomically
from d3ssl.models import Backbone
from d3ssl.models.artifact import contents


def weights_digest(backbone: Backbone) -> str:
    """Changes with any weight, and with how the backbone reads regions and normalises images."""
    parts: list[bytes | str] = [f"{backbone.architecture} {backbone.region_path} {backbone.roi_size}"]
    parts.append(f"{backbone.mean} {backbone.std} {backbone.in_channels}")
    return digest(*parts, *contents(backbone.state_dict()))


def annotations_digest(images: ImageSet) -> str:
    """Changes with the images (names, bytes, times of change) and with anything that is said of their objects."""
    return digest(images.digest(), *(str(changed_at(path)) for path in images.paths), *said_of_objects(images))


def said_of_objects(images: ImageSet) -> list[bytes | str]:
    """All that the annotations say, for a digest; empty without annotations."""
    if images.annotations is None:
        return []
    own = images.annotations
    parts: list[bytes | str] = [str(own.categories), own.boxes.tobytes(), own.labels.tobytes(), own.crowd.tobytes()]
    parts += [rows.tobytes() for rows in own.objects_of]
    return parts + [own.segmentations.content(int(row)) for rows in own.objects_of for row in rows]


def cached_objects(
    folder: Path, backbone: Backbone, images: ImageSet, *, size: int, regions: Literal["box", "mask"], **options: Any
) -> ObjectFeatures:
    """``extract_objects``, or what it gave before for the same weights, images, annotations and options.

    Args:
        folder: where the features are kept, a file each.
        options: of ``extract_objects``.
    """
    changing = {key: value for key, value in options.items() if key in ("min_side", "max_bad_share")}
    key = digest(weights_digest(backbone), annotations_digest(images), f"{size} {regions} {changing}")
    path = folder / f"{key}.safetensors"
    found = _load(path)
    if found is not None:
        say(f"{options.get('label', 'features')}: kept from before")
        return found
    found = extract_objects(backbone, images, size=size, regions=regions, **options)
    if rank() == 0:
        tensors = {"x": found.x.contiguous(), "y": found.y, "image": found.image}
        with write_atomically(path) as temporary:
            safetensors.torch.save_file(tensors, temporary, metadata={"skipped": json.dumps(found.skipped)})
    barrier()
    return found


def _load(path: Path) -> ObjectFeatures | None:
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            x, y, image = (file.get_tensor(name) for name in ("x", "y", "image"))
            skipped = json.loads(file.metadata()["skipped"])
    except (safetensors.SafetensorError, KeyError, ValueError) as error:
        warn(f"{path}: kept features cannot be read ({error}); they are computed again")
        return None
    return ObjectFeatures(x=x, y=y, image=image, skipped=tuple(skipped))
