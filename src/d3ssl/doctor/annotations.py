"""Objects in COCO's form, looked through to the end: all that is wrong, where reading them stops at the first."""

from __future__ import annotations

import math
from typing import Any

from d3ssl.data.coco import TOLERANCE_PX
from d3ssl.doctor.check import MAX_LISTED, Check, Status, percent

PROBLEMS = {
    "boxes without area": "have a width or height of 0 or less",
    "boxes outside images": f"reach more than {TOLERANCE_PX:g} px beyond their image",
    "objects without image": "name an image that is not in the file's list",
    "objects without category": "name a category that is not in the file's list",
    "objects without box": "have no bbox of four numbers",
}
"""Name of the check → what is wrong with its objects."""
_SKIPPED = ("boxes without area", "boxes outside images")


def bad_objects(document: Any) -> tuple[dict[str, list[Any]], int] | None:
    """Problem → ids of the objects that have it (an object is counted once, under the first in the order of reading),
    and the number of objects. None: no instances document."""
    parts = [
        document.get(key) if isinstance(document, dict) else None for key in ("images", "annotations", "categories")
    ]
    if not all(isinstance(part, list) for part in parts):
        return None
    images, objects, categories = ([entry for entry in part if isinstance(entry, dict)] for part in parts)  # type: ignore[union-attr]
    size_of = {_key(entry, "id"): (entry.get("width"), entry.get("height")) for entry in images}
    known = {_key(entry, "id") for entry in categories}
    found: dict[str, list[Any]] = {name: [] for name in PROBLEMS}
    for place, entry in enumerate(objects):
        problem = _problem(entry, size_of, known)
        if problem is not None:
            found[problem].append(entry.get("id", f"number {place + 1}"))
    return found, len(objects)


def _problem(entry: dict[str, Any], size_of: dict[Any, tuple[Any, Any]], known: set[Any]) -> str | None:
    if _key(entry, "image_id") not in size_of:
        return "objects without image"
    if _key(entry, "category_id") not in known:
        return "objects without category"
    box = entry.get("bbox")
    if not isinstance(box, list) or len(box) != 4 or not all(_is_number(value) for value in box):
        return "objects without box"
    x, y, width, height = box
    if width <= 0 or height <= 0:
        return "boxes without area"
    limits = size_of[_key(entry, "image_id")]
    if not all(_is_number(limit) for limit in limits):
        return None  # reading the file says so
    beyond = max(-x, -y, x + width - limits[0], y + height - limits[1])
    return "boxes outside images" if beyond > TOLERANCE_PX else None


def _key(entry: dict[str, Any], name: str) -> Any:
    """An id as the file has it; of lists and the like, which are no ids, their text."""
    value = entry.get(name)
    return value if type(value) in (int, str) else repr(value)


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def check_objects(found: dict[str, list[Any]], total: int, max_bad_share: float) -> list[Check]:
    """A few bad boxes are passed over when the file is read; all else is an error."""
    checks = []
    skipped = sum(len(found[name]) for name in _SKIPPED)
    for name, ids in found.items():
        if not ids:
            checks.append(Check(name=name, status="ok", finding="none"))
            continue
        passed = name in _SKIPPED and skipped <= max_bad_share * total
        status: Status = "warning" if passed else "fail"
        listed = ", ".join(str(number) for number in ids[:20]) + (", …" if len(ids) > 20 else "")
        end = " They are left out." if passed else " The file cannot be read with them."
        text = f"{percent(len(ids), total)} objects {PROBLEMS[name]}.{end}"
        remedy = f"repair or remove the annotations {listed}"
        checks.append(Check(name=name, status=status, finding=text, remedy=remedy, count=min(len(ids), MAX_LISTED)))
    return checks
