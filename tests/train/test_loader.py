"""Canvas batches: boxes and label maps agree, visits differ, epochs are permutations, sizes are checked."""

import io
import multiprocessing
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from d3ssl.data.sources import open_images
from d3ssl.errors import InputError
from d3ssl.regions.table import RegionTable
from d3ssl.train.config import CanvasConfig
from d3ssl.train.loader import CanvasDataset, LoadedBatch, StepSampler, collate, loading

BOXES = np.array([[0, 0, 20, 48], [20, 0, 64, 20], [20, 20, 64, 48]], dtype=np.float32)


def make_table(photos: Path, labels: bool = True) -> RegionTable:
    images = open_images(photos)
    number = np.zeros((48, 64), dtype=np.uint8)
    for value, (x0, y0, x1, y1) in enumerate(BOXES.astype(int), start=1):
        number[y0:y1, x0:x1] = value
    buffer = io.BytesIO()
    Image.fromarray(number).save(buffer, format="PNG")
    count = len(images)
    return RegionTable(
        ids=images.ids,
        sizes=np.tile(np.array([48, 64]), (count, 1)),
        boxes=[BOXES.copy() for _ in range(count)],
        label_maps=[buffer.getvalue() if labels else None] * count,
        metadata={"method": "made up", "params": {}, "data_digest": images.digest()},
    )


def make_dataset(photos: Path, labels: bool = True, **options: int) -> CanvasDataset:
    config = CanvasConfig(size=40, **{"max_candidates": 8, **options})  # type: ignore[arg-type]
    return CanvasDataset(open_images(photos), make_table(photos), config, seed=5, masks=labels)


def test_boxes_and_label_maps_agree_on_the_canvas(photos: Path) -> None:
    batch = collate([make_dataset(photos)[number] for number in range(6)])
    assert isinstance(batch, LoadedBatch)
    batch = batch.batch
    assert batch.canvas.shape == (6, 3, 40, 40)
    assert batch.labels is not None
    for image in range(6):
        assert batch.valid[image].tolist() == [True] * 3 + [False] * 5
        for slot in range(3):
            ys, xs = np.nonzero((batch.labels[image] == slot + 1).numpy())
            found = [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]
            np.testing.assert_allclose(found, batch.boxes[image, slot].numpy(), atol=1.0)


def test_every_visit_draws_its_own_candidates(photos: Path) -> None:
    dataset = make_dataset(photos, max_candidates=2)
    first = [tuple(map(tuple, dataset.load(number)[0]["boxes"].tolist())) for number in range(40)]
    assert len(set(first)) == 6  # ordered pairs of three regions
    assert first == [tuple(map(tuple, dataset.load(number)[0]["boxes"].tolist())) for number in range(40)]


def test_epochs_are_different_permutations(photos: Path) -> None:
    dataset = make_dataset(photos)
    epochs = [[dataset.place(number) for number in range(start, start + 10)] for start in (0, 10, 20)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]


def test_batches_do_not_depend_on_the_workers(photos: Path) -> None:
    def indices(workers: int) -> list[list[int]]:
        found = []
        with loading(make_dataset(photos), StepSampler(1, 4, 4, 1, 0, 1), workers) as batches:
            for loaded in batches:
                assert isinstance(loaded, LoadedBatch)
                found.append(loaded.batch.index.tolist())
        return found

    assert indices(0) == indices(2)


def test_loaders_end_with_the_block_even_if_an_error_keeps_their_iterator(photos: Path) -> None:
    before = set(multiprocessing.active_children())
    kept = []

    def fail() -> None:
        with loading(make_dataset(photos), StepSampler(0, 1000, 4, 1, 0, 1), 2) as batches:
            kept.append(batches)
            next(batches)
            assert len(set(multiprocessing.active_children()) - before) == 2
            raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        fail()
    assert set(multiprocessing.active_children()) == before


def test_regions_of_another_size_are_refused(photos: Path) -> None:
    dataset = make_dataset(photos)
    dataset.regions.sizes[:] = [50, 64]
    with pytest.raises(InputError, match="compute the regions again"):
        dataset.load(0)


def test_labels_need_label_maps(photos: Path) -> None:
    with pytest.raises(InputError, match="boxes only"):
        CanvasDataset(open_images(photos), make_table(photos, labels=False), CanvasConfig(size=40), 0, masks=True)
