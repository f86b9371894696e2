"""Canvases and a table of views for the tests: noise or plain colours, so that pixels tell where they come from."""

import torch
from torch import Tensor

from d3ssl.contracts import CanvasBatch, Slots, View, ViewSet, map_tensors
from d3ssl.seeds import Draws, torch_generator
from d3ssl.views import RegionsSpec, ViewMaker, ViewSpec
from d3ssl.views.ops import Crop, FillHoles, Photometric, RegionCutout, Shift

PLAIN = Photometric(jitter_p=0.0, grey_p=0.0, blur_p=0.0, solarize_p=0.0)
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
SIDE, BATCH = 96, 6


def make_batch(images: int = BATCH, *, labels: bool = True, coloured: bool = False, seed: int = 0) -> CanvasBatch:
    """Noise (or an image of one colour each) with six candidates, the last of them padding."""
    generator = torch_generator("canvas", seed)
    canvas = torch.randint(0, 256, (images, 3, SIDE, SIDE), dtype=torch.uint8, generator=generator)
    if coloured:
        canvas[:] = (torch.arange(images) * 230 // images + 20).byte()[:, None, None, None]
    corner = torch.randint(2, 50, (images, 6, 2), generator=generator)
    extent = torch.randint(22, 42, (images, 6, 2), generator=generator)
    boxes = torch.cat([corner, corner + extent], dim=-1)
    boxes[:, 5] = 0
    label_map = torch.zeros(images, SIDE, SIDE, dtype=torch.uint8)
    for b in range(images):
        for r, (x0, y0, x1, y1) in enumerate(boxes[b, :5].tolist()):
            label_map[b, y0 + 2 : y1 - 2, x0 + 2 : x1 - 2] = r + 1
    return CanvasBatch(
        canvas=canvas,
        image_size=torch.tensor([[480.0, 640.0]]).repeat(images, 1),
        boxes=boxes.float(),
        valid=torch.tensor([[True] * 5 + [False]]).repeat(images, 1),
        labels=label_map if labels else None,
        index=torch.arange(images) + 100,
    )


def make_table(
    photometric: Photometric = PLAIN,
    x1_area: tuple[float, float] = (1.0, 1.0),
    x2_area: tuple[float, float] = (0.6, 1.0),
    shift: Shift | None = None,
) -> dict[str, ViewSpec]:
    """SoCo's views, a cut copy of the first, and one with a moved foreground."""
    moved = (RegionCutout(), shift or Shift(), FillHoles())
    return {
        "x1": ViewSpec(size=80, crop=Crop(area=x1_area), photometric=photometric),
        "x2": ViewSpec(size=80, source="x1", crop=Crop(area=x2_area), photometric=photometric),
        "x2_small": ViewSpec(size=40, source="x2"),
        "x1_cut": ViewSpec(size=80, source="x1", operations=(RegionCutout(),)),
        "x3": ViewSpec(size=80, source="x2", photometric=photometric, operations=moved),
    }


def make_views(
    batch: CanvasBatch, seed: int = 0, table: dict[str, ViewSpec] | None = None, regions: RegionsSpec | None = None
) -> ViewSet:
    return ViewMaker(table or make_table(), regions or RegionsSpec(), MEAN, STD)(batch, Draws(seed=seed))


def make_slots(source: list[list[int]], boxes: Tensor | None = None) -> Slots:
    """Slots of which slot k shows the region of slot ``source[image][k]``."""
    number = torch.tensor(source)
    times = (number[:, :, None] == number[:, None]).sum(2)
    return Slots(
        distinct=number == torch.arange(number.shape[1]),
        source=number,
        weight=1 / times,
        boxes=torch.zeros(*number.shape, 4) if boxes is None else boxes,
        index=torch.arange(len(number)),
    )


def kept(view: View) -> Tensor:
    assert view.keep is not None
    return view.keep


def labels_of(view: View) -> Tensor:
    assert view.labels is not None
    return view.labels


def raw(view: View) -> Tensor:
    """Pixels back in 0..255."""
    return (view.images * torch.tensor(STD)[:, None, None] + torch.tensor(MEAN)[:, None, None]) * 255


def tensors(value: object) -> list[Tensor]:
    """All tensors of a contract, in order."""
    found: list[Tensor] = []
    map_tensors(value, lambda tensor: (found.append(tensor), tensor)[1])
    return found
