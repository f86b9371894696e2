"""Probe images: what is the same in them and what is not, and the known answers of the diagnosis."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from d3ssl.data.image_set import ImageSet
from d3ssl.data.scenes import ScenesConfig, make_scenes
from d3ssl.data.sources import open_images
from d3ssl.diagnose import DiagnoseConfig, ProbeSet, build_probes, diagnose, diagnose_backbone
from d3ssl.diagnose.cutouts import draw_balanced, find_candidates
from d3ssl.errors import D3sslError, InputError
from d3ssl.models import Backbone
from d3ssl.seeds import numpy_generator

SIZE = 64
CONFIG = DiagnoseConfig(size=SIZE, objects=12, seeds=2, draws=200, batch_size=32)
GREY = 128


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> ImageSet:
    folder = tmp_path_factory.mktemp("scenes") / "scenes"
    make_scenes(folder, ScenesConfig(images=30, val_images=1, size=80, num_classes=5, themes=3, workers=1))
    return open_images(folder / "train")


@pytest.fixture(scope="module")
def probes(scenes: ImageSet) -> ProbeSet:
    return build_probes(scenes, CONFIG, 0)


def cut(images: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """The content of an object's box in all its images."""
    return np.stack(
        [
            image[int(y1) : int(y2), int(x1) : int(x2)]
            for image, (x1, y1, x2, y2) in zip(images, boxes.tolist(), strict=True)
        ]
    )


def test_the_object_is_the_same_at_every_place_and_all_else_is_grey(probes: ProbeSet) -> None:
    position = probes.position
    for images, boxes in zip(position.images, position.boxes, strict=True):
        shown = cut(images, boxes)
        assert (shown == shown[0]).all()
        assert shown[0].std() > 0 or (shown[0] != GREY).any()
        for image, (x1, y1, x2, y2) in zip(images.copy(), boxes.astype(int), strict=True):
            image[y1:y2, x1:x2] = GREY
            assert (image == GREY).all()


def test_places_are_a_grid_with_the_object_inside(probes: ProbeSet) -> None:
    boxes = probes.position.boxes
    assert boxes.shape == (12, 9, 4)
    assert boxes.min() >= 0 and boxes.max() <= SIZE
    longer = (boxes[..., 2:] - boxes[..., :2]).max(axis=2)
    assert (longer == round(0.4 * SIZE)).all()
    centres = (boxes[..., :2] + boxes[..., 2:]) / 2
    assert np.abs(centres - centres.mean(axis=0)).max() <= 1
    steps = np.array([0.2, 0.5, 0.8]) * SIZE
    assert np.allclose(centres[:, :, 0], np.tile(steps, 3), atol=1)
    assert np.allclose(centres[:, :, 1], np.repeat(steps, 3), atol=1)


@pytest.mark.parametrize(("size", "side", "step"), [(64, 0.4, 16), (64, 0.5, 16), (67, 0.4, 5), (90, 0.3, 7)])
def test_places_of_a_step_are_whole_multiples_of_it_apart(scenes: ImageSet, size: int, side: float, step: int) -> None:
    """Of objects of odd sides too; every place is moved inwards by less than a step."""
    config = replace(CONFIG, size=size, object_side=side, place_step=step, neighbours=0, neighbour_classes=0)
    boxes = build_probes(scenes, replace(config, other_sides=()), 0).position.boxes
    assert boxes.min() >= 0 and boxes.max() <= size
    corners = boxes[..., :2]
    assert len({(int(height) % 2, int(width) % 2) for width, height in boxes[:, 0, 2:] - corners[:, 0]}) > 1
    reach = int((1 - side) / 2 * size / step + 1e-6) * step
    steps = np.array([-reach, 0, reach])
    assert ((corners - corners[:, 4:5])[..., 0] == np.tile(steps, 3)).all()
    assert ((corners - corners[:, 4:5])[..., 1] == np.repeat(steps, 3)).all()


def test_a_step_that_leaves_too_few_places_is_refused_before_objects_are_cut_out(
    scenes: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("d3ssl.diagnose.probes.cut_out", lambda *_: pytest.fail("an object was cut out"))
    for change in ({"place_step": 20}, {"place_step": 16, "grid": 5}):
        with pytest.raises(InputError, match=r"too few for --grid"):
            build_probes(scenes, replace(CONFIG, **change), 0)


def test_context_changes_and_the_object_does_not(probes: ProbeSet) -> None:
    """What the object covers is equal in all contexts; all around it changes. Its pixels are those on grey."""
    context, position = probes.context, probes.position
    assert (context.boxes == context.boxes[:, :1]).all()
    centre = (context.boxes[..., :2] + context.boxes[..., 2:]) / 2
    assert np.abs(centre - SIZE / 2).max() <= 1
    for number in range(len(context.images)):
        shown = cut(context.images[number], context.boxes[number]).astype(int)
        on_grey = cut(position.images[number], position.boxes[number])[0].astype(int)
        solid = (np.ptp(shown, axis=0) == 0).all(axis=2)
        assert solid.mean() > 0.15
        assert (shown[0][solid] == on_grey[solid]).all()
        x1, y1, x2, y2 = context.boxes[number, 0].astype(int)
        around = np.ones((SIZE, SIZE), dtype=bool)
        around[y1:y2, x1:x2] = False
        changed = (np.ptp(context.images[number].astype(int), axis=0) > 0).any(axis=2)
        assert changed[around].mean() > 0.99


def test_neighbours_never_reach_the_box_and_are_there(scenes: ImageSet) -> None:
    """On uniform contexts: without neighbours one colour, with neighbours not; nothing of them inside the box."""
    config = DiagnoseConfig(size=SIZE, objects=12, contexts=3, uniform_contexts=3, neighbours=0)
    alone = build_probes(scenes, config, 0).context
    full = build_probes(scenes, replace(config, neighbours=8), 0).context
    for number in range(12):
        x1, y1, x2, y2 = alone.boxes[number, 0].astype(int)
        for condition in range(3):
            outside = alone.images[number, condition].copy()
            outside[y1:y2, x1:x2] = outside[0, 0]
            assert (outside == outside[0, 0]).all()
            picture = full.images[number, condition]
            differs = (picture != picture[0, 0]).any(axis=2)
            assert differs.mean() > 0.2
            shown = (alone.images[number] != alone.images[number][:, :1, :1]).any(axis=(0, 3))  # by the object itself
            assert not (differs & ~shown)[y1:y2, x1:x2].any()


def test_the_same_seed_gives_the_same_probes_another_seed_others(scenes: ImageSet, probes: ProbeSet) -> None:
    again, other = build_probes(scenes, CONFIG, 0), build_probes(scenes, CONFIG, 1)
    assert again.digest == probes.digest and np.array_equal(again.context.images, probes.context.images)
    assert other.digest != probes.digest and set(other.identities.tolist()) != set(probes.identities.tolist())


def test_classes_are_balanced(scenes: ImageSet, probes: ProbeSet) -> None:
    assert np.ptp(np.bincount(probes.labels)) <= 1
    candidates = find_candidates(scenes, 16)
    rows = draw_balanced(candidates, len(candidates), numpy_generator(0))
    assert sorted(rows.tolist()) == list(range(len(candidates)))


class Oracle(Backbone):
    """Reads from the probe images what it is told to."""

    def __init__(self, what: str) -> None:
        torch.nn.Module.__init__(self)
        self.what, self.in_channels, self.timm_name, self.input_size = what, 3, what, SIZE
        self.mean, self.std, self.region_path, self.roi_size = (0.0,) * 3, (1.0,) * 3, "map", 1
        self.calls = 0

    def pool(self, images: Tensor, boxes: list[Tensor], region_path: object = None) -> Tensor:
        if self.what == "average":
            return images.mean(dim=(2, 3))
        if self.what == "place":
            return torch.cat([(own[:, :2] + own[:, 2:]) / 2 / SIZE for own in boxes]) + self._nothing(images)
        if self.what == "constant":
            return torch.ones(len(images), 4) + self._nothing(images)
        raise AssertionError

    @staticmethod
    def _nothing(images: Tensor) -> Tensor:
        """0, by a path that carries a gradient."""
        return 0 * images.sum()


class MaskedCrop(Oracle):
    """Features of the object cropped by its mask and centred. The mask is what all contexts have in common, so the
    crop is prepared for each object, and looked up in the order of the probes."""

    def __init__(self, sets: list[ProbeSet]) -> None:
        super().__init__("masked crop")
        self.rows: list[Tensor] = []
        for own in sets:
            shown = [cut(i, b)[0] for i, b in zip(own.position.images, own.position.boxes, strict=True)]
            masks = [
                (np.ptp(cut(i, b).astype(int), axis=0) == 0).all(axis=2)
                for i, b in zip(own.context.images, own.context.boxes, strict=True)
            ]
            self.masks = masks
            for probe in (own.context, own.position):
                for number in range(len(shown)):
                    for content in cut(probe.images[number], probe.boxes[number]):
                        crop = torch.zeros(3, SIZE, SIZE)
                        height, width = content.shape[:2]
                        masked = torch.from_numpy(content * masks[number][..., None]).permute(2, 0, 1).float() / 255
                        crop[:, :height, :width] = masked
                        self.rows.append(torch.nn.functional.avg_pool2d(crop, 4).flatten())

    def pool(self, images: Tensor, boxes: list[Tensor], region_path: object = None) -> Tensor:
        start, self.calls = self.calls, self.calls + len(images)
        return torch.stack(self.rows[start : self.calls])


def test_a_masked_and_centred_crop_depends_on_neither(scenes: ImageSet) -> None:
    plain = replace(CONFIG, neighbour_classes=0, other_sides=())
    sets = [build_probes(scenes, plain, seed) for seed in range(2)]
    found = diagnose(MaskedCrop(sets), sets, draws=200, gradient_objects=0)
    assert found.context_sensitivity.value == pytest.approx(0, abs=1e-3)
    assert found.position_sensitivity.value == pytest.approx(0, abs=1e-3)


def test_global_average_pooling_depends_on_the_context_as_on_the_object(scenes: ImageSet) -> None:
    sets = (build_probes(scenes, CONFIG, seed) for seed in range(2))
    found = diagnose(Oracle("average"), sets, draws=200).context_sensitivity
    assert 0.8 < found.value < 1.15
    assert found.low < found.value < found.high


def test_features_that_are_the_place_depend_on_it_alone(probes: ProbeSet) -> None:
    """Many times more on the place than on the object. (The objects' own shapes move their centres by half a pixel,
    which keeps the figure finite.) In contexts the place never changes."""

    class PlaceAndShape(Oracle):
        def pool(self, images: Tensor, boxes: list[Tensor], region_path: object = None) -> Tensor:
            sizes = torch.cat([(own[:, 2:] - own[:, :2]) / SIZE for own in boxes])
            return torch.cat([super().pool(images, boxes), 0.05 * sizes], dim=1)

    found = diagnose(PlaceAndShape("place"), probes, draws=200)
    assert found.position_sensitivity.low > 5
    assert found.context_sensitivity.value == pytest.approx(0, abs=1e-6)


def test_constant_features_are_an_error(probes: ProbeSet) -> None:
    with pytest.raises(D3sslError, match=r"(?s)same feature.*collapsed"):
        diagnose(Oracle("constant"), probes)
    with pytest.raises(InputError, match="no probe sets"):
        diagnose(Oracle("average"), [])


def test_diagnosis_is_written_with_a_picture(scenes: ImageSet, tmp_path: Path) -> None:
    data = str(scenes.root.parent)
    plain = replace(CONFIG, layers=False, other_sides=())
    found = diagnose_backbone("timm:test_resnet", data, str(tmp_path), plain)
    assert found == json.loads((tmp_path / "diagnosis.json").read_text())
    for key in ("context_sensitivity", "position_sensitivity"):
        assert 0 < found[f"{key}_low"] <= found[key] <= found[f"{key}_high"]
        assert len(found[f"{key}_by_seed"]) == 2
    with Image.open(tmp_path / "probes.png") as sheet:
        assert sheet.width > 14 * 96 and sheet.height > 6 * 96
    again = diagnose_backbone("timm:test_resnet", data, None, plain)
    assert again == found


def test_without_data_procedural_scenes_are_made(tmp_path: Path) -> None:
    tiny = DiagnoseConfig(size=SIZE, objects=6, seeds=1, draws=100, contexts=2, layers=False, other_sides=())
    found = diagnose_backbone("timm:test_resnet", None, tmp_path, tiny)
    assert found["data"] == "procedural scenes" and found["probe_objects"] == [6]


def test_other_numbers_of_channels(tmp_path: Path) -> None:
    """Images of five channels are cut and pasted like any other."""
    (tmp_path / "images").mkdir()
    rng, objects = np.random.default_rng(0), []
    for number in range(6):
        np.save(tmp_path / "images" / f"{number}.npy", rng.integers(0, 255, (40, 40, 5)).astype(np.uint8))
        for place in (2, 20):
            corner = [place, place, place + 17, place, place + 17, place + 17]
            entry = {"id": len(objects), "image_id": number, "category_id": place, "bbox": [place, place, 17, 17]}
            objects.append(entry | {"segmentation": [corner]})
    images = [{"id": n, "file_name": f"{n}.npy", "height": 40, "width": 40} for n in range(6)]
    categories = [{"id": 2, "name": "a"}, {"id": 20, "name": "b"}]
    document = {"images": images, "annotations": objects, "categories": categories}
    (tmp_path / "annotations.json").write_text(json.dumps(document))
    found = build_probes(open_images(tmp_path), CONFIG, 0, channels=5)
    assert found.context.images.shape == (12, 5, SIZE, SIZE, 5)
    with pytest.raises(InputError, match="5 channels"):
        build_probes(open_images(tmp_path), CONFIG, 0)


def test_bad_data_and_options(scenes: ImageSet, tmp_path: Path) -> None:
    assert scenes.annotations is not None
    with pytest.raises(InputError, match="too few"):
        build_probes(scenes.subset([0, 1]), CONFIG, 0)
    with pytest.raises(InputError, match="too few"):
        find_candidates(scenes, 70)
    document = json.loads(scenes.annotations.path.read_text())
    for entry in document["annotations"]:
        del entry["segmentation"]
    (tmp_path / "images").symlink_to(scenes.root)
    (tmp_path / "annotations.json").write_text(json.dumps(document))
    with pytest.raises(InputError, match="without masks"):
        diagnose_backbone("timm:test_resnet", tmp_path, None, CONFIG)
    with pytest.raises(InputError, match="no annotations"):
        diagnose_backbone("timm:test_resnet", tmp_path / "images", None, CONFIG)
    for bad in (
        DiagnoseConfig(contexts=1),
        DiagnoseConfig(object_side=0.9),
        DiagnoseConfig(neighbour_side=0.35),
        DiagnoseConfig(uniform_contexts=9),
    ):
        with pytest.raises(InputError, match="out of range"):
            diagnose_backbone("timm:test_resnet", None, None, bad)


def damaged(scenes: ImageSet, folder: Path, *numbers: int) -> ImageSet:
    """A copy of the scenes with some images cut short."""
    shutil.copytree(scenes.root.parent, folder)
    for number in numbers:
        path = folder / "images" / scenes.ids[number]
        path.write_bytes(path.read_bytes()[:60])
    return open_images(folder)


def test_unreadable_images_are_left_out_and_named(
    scenes: ImageSet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = damaged(scenes, tmp_path / "scenes", 3, 17)
    probes = build_probes(images, replace(CONFIG, objects=40, max_bad_share=0.1), 0)
    shown = capsys.readouterr().err.replace("\n", "").replace(" ", "")
    assert "2of30imagestriedareleftout" in shown
    assert images.annotations is not None
    for number in (3, 17):
        assert images.paths[number].name in shown
        assert not set(images.annotations.objects(number).ids.tolist()) & set(probes.identities.tolist())


def test_above_the_share_of_the_images_tried_unreadable_ones_are_an_error(scenes: ImageSet, tmp_path: Path) -> None:
    images = damaged(scenes, tmp_path / "scenes", 3, 5, 9, 17)
    with pytest.raises(
        InputError, match=rf"images tried cannot be used.*0\.01:(?s:.*){scenes.ids[3]}(?s:.*)max_bad_share"
    ):
        build_probes(images, CONFIG, 0)  # four of 30 are more than a few
    with pytest.raises(InputError, match="out of range"):
        build_probes(images, replace(CONFIG, max_bad_share=1.5), 0)


def test_without_bad_images_the_share_changes_nothing(scenes: ImageSet, probes: ProbeSet) -> None:
    assert build_probes(scenes, replace(CONFIG, max_bad_share=0.0), 0).digest == probes.digest
