"""Features in a file: what is in it, compared with plain loops; how others read it; errors before the work."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import torchvision

import d3ssl
from d3ssl.cli.main import main
from d3ssl.data.images import read_canvas
from d3ssl.data.sources import open_images
from d3ssl.embedding import EmbedConfig, embed
from d3ssl.embedding.table import read_about
from d3ssl.errors import D3sslError, InputError
from d3ssl.models import Backbone, create_backbone
from d3ssl.models.artifact import save_backbone
from d3ssl.regions.compute import compute_regions
from d3ssl.regions.config import RegionsConfig
from d3ssl.regions.table import read_regions
from d3ssl.views.colour import normalise
from tests.data.annotated_shapes import write_part

SIZE = 64


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("embed") / "labelled"
    write_part(folder, {"ant": 3, "bee": 2, "cat": 2}, 0)
    return folder


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return create_backbone("test_resnet", seed=0).eval()


def read(path: Path) -> tuple[pa.Table, np.ndarray]:
    table = pq.read_table(path)
    return table, np.stack(table["feature"].to_numpy(zero_copy_only=False))


def maps_of(backbone: Backbone, path: object, level: int) -> torch.Tensor:
    """(C, h, w), of one image at a time."""
    canvas, _ = read_canvas(path, SIZE)  # type: ignore[arg-type]
    image = torch.from_numpy(canvas).permute(2, 0, 1)[None].float() / 255
    with torch.no_grad():
        return backbone.maps(normalise(image, backbone.mean, backbone.std))[level][0]


# --- what is in the file -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", [-1, -2])
def test_images_are_the_mean_of_a_map_in_the_order_of_the_data(
    labelled: Path, backbone: Backbone, level: int, tmp_path: Path
) -> None:
    config = EmbedConfig(size=SIZE, level=level, batch_size=3)
    assert embed(backbone, labelled, tmp_path / "f.parquet", config) == tmp_path / "f.parquet"
    table, features = read(tmp_path / "f.parquet")
    images = open_images(labelled)
    assert table.column_names == ["id", "feature"] and tuple(table["id"].to_pylist()) == images.ids
    assert table.schema.field("feature").type == pa.list_(pa.float32(), backbone.channels[level])
    wanted = [maps_of(backbone, path, level).mean(dim=(1, 2)).numpy() for path in images.paths]
    assert np.allclose(features, wanted, atol=1e-5)


def test_boxes_of_objects_are_roi_align_on_the_map(labelled: Path, backbone: Backbone, tmp_path: Path) -> None:
    embed(backbone, labelled, tmp_path / "f.parquet", EmbedConfig(of="boxes", size=SIZE, level=-2))
    table, features = read(tmp_path / "f.parquet")
    images = open_images(labelled)
    assert images.annotations is not None
    assert table.column_names == ["id", "region", "box", "annotation_id", "class_name", "feature"]
    for row in range(len(table)):
        index = images.ids.index(table["id"][row].as_py())
        objects = images.annotations.objects(index)
        assert table["box"][row].as_py() == objects.boxes[0].tolist()
        assert table["region"][row].as_py() == 0
        assert table["annotation_id"][row].as_py() == objects.ids[0]
        assert table["class_name"][row].as_py() == table["id"][row].as_py()[:3]
        height, width = images.annotations.sizes[index]
        box = torch.from_numpy(objects.boxes[:1]) * torch.tensor([float(SIZE / width), float(SIZE / height)] * 2)
        found = maps_of(backbone, images.paths[index], -2)[None]
        cells = torchvision.ops.roi_align(found, [box], 7, 1 / backbone.strides[-2], sampling_ratio=2, aligned=True)
        assert np.allclose(features[row], cells.mean(dim=(2, 3))[0].numpy(), atol=1e-5)


class Pixels(Backbone):
    """Its map is the image itself, two by two pixels a cell."""

    def __init__(self) -> None:
        torch.nn.Module.__init__(self)
        self.in_channels, self.timm_name, self.input_size, self.channels, self.strides = 3, "pixels", SIZE, [3], [2]
        self.mean, self.std, self.region_path, self.roi_size, self.library = (0.0,) * 3, (1.0,) * 3, "map", 7, "module"
        self.net = torch.nn.Identity()
        self.layout = create_backbone("test_resnet").layout

    def maps(self, images: torch.Tensor) -> list[torch.Tensor]:
        return [torch.nn.functional.avg_pool2d(images, 2)]


def test_masks_have_the_colour_of_their_object_only(labelled: Path, tmp_path: Path) -> None:
    colours = {"ant": (220, 30, 30), "bee": (30, 200, 30), "cat": (40, 40, 230)}
    embed(Pixels(), labelled, tmp_path / "f.parquet", EmbedConfig(of="masks", size=80))
    table, features = read(tmp_path / "f.parquet")
    wanted = np.array([colours[name] for name in table["class_name"].to_pylist()])
    assert np.abs(features * 255 - wanted).max() < 12  # the border's pixels are of both
    embed(Pixels(), labelled, tmp_path / "boxes.parquet", EmbedConfig(of="boxes", size=80))
    assert np.abs(read(tmp_path / "boxes.parquet")[1] * 255 - wanted).max() > 15


def test_an_object_without_a_mask_is_its_box(labelled: Path, tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    folder = tmp_path / "some"
    write_part(folder, {"ant": 2}, 0)
    document = json.loads((folder / "annotations.json").read_text())
    del document["annotations"][1]["segmentation"]
    x, y, width, height = (8 * round(value / 8) for value in document["annotations"][1]["bbox"])
    document["annotations"][1]["bbox"] = [x, y, width, height]
    (folder / "annotations.json").write_text(json.dumps(document))
    embed(Pixels(), folder, tmp_path / "f.parquet", EmbedConfig(of="masks", size=80))
    assert "1 of 2 objects have no mask" in capfd.readouterr().err
    canvas, _ = read_canvas(open_images(folder).paths[1], 80)
    x, width = x * 80 / 100, width * 80 / 100
    inside = canvas[y : y + height, round(x) : round(x + width)].mean(axis=(0, 1))
    assert np.abs(read(tmp_path / "f.parquet")[1][1] * 255 - inside).max() < 6


@pytest.mark.parametrize("of", ["boxes", "masks"])
def test_regions_of_a_file(labelled: Path, of: str, tmp_path: Path) -> None:
    """A grid of 3 × 3 tiles of an image that is its own map: a tile's feature is its mean colour, by box or by mask."""
    images = open_images(labelled)
    compute_regions(images, RegionsConfig(method="grid", workers=1), tmp_path / "r.parquet")
    found = read_regions(tmp_path / "r.parquet")
    config = EmbedConfig(of=of, regions=str(tmp_path / "r.parquet"), size=240)  # type: ignore[arg-type]
    embed(Pixels(), labelled, tmp_path / "f.parquet", config)
    table, features = read(tmp_path / "f.parquet")
    assert table.column_names == ["id", "region", "box", "feature"]
    assert table["id"].to_pylist() == [name for name in images.ids for _ in range(9)]
    assert table["region"].to_pylist() == list(range(9)) * len(images)
    assert np.allclose(np.stack(table["box"].to_numpy()), np.concatenate(list(found.boxes)))
    canvas, _ = read_canvas(images.paths[0], 240)
    for row in range(9):
        x0, y0, x1, y1 = (round(v) for v in found.boxes[0][row] * np.array([2.4, 3, 2.4, 3]))
        assert np.abs(features[row] * 255 - canvas[y0:y1, x0:x1].mean(axis=(0, 1))).max() < 4


def test_float16_is_float32_rounded(labelled: Path, backbone: Backbone, tmp_path: Path) -> None:
    embed(backbone, labelled, tmp_path / "32.parquet", EmbedConfig(size=SIZE))
    embed(backbone, labelled, tmp_path / "16.parquet", EmbedConfig(size=SIZE, dtype="float16"))
    one, other = read(tmp_path / "32.parquet")[1], read(tmp_path / "16.parquet")[1]
    assert other.dtype == np.float16 and np.array_equal(one.astype(np.float16), other)


def test_the_metadata_says_what_the_features_are(labelled: Path, backbone: Backbone, tmp_path: Path) -> None:
    save_backbone(tmp_path / "run", backbone, {"input_size": SIZE, "steps": 7})
    out = tmp_path / "f.parquet"
    assert main(["embed", str(tmp_path / "run"), str(labelled), "--out", str(out), "--of", "boxes"]) == 0
    about = read_about(out)
    assert about["backbone"]["manifest"]["steps"] == 7
    assert about["backbone"]["manifest"]["timm_name"] == "test_resnet"
    assert about["options"] == {
        "of": "boxes", "level": -1, "size": SIZE, "dtype": "float32", "batch_size": 64, "device": "cpu"
    }  # fmt: skip
    assert about["data"]["digest"] == open_images(labelled).digest() and about["data"]["regions_digest"]
    assert about["versions"]["d3ssl"] == d3ssl.__version__ and about["skipped"] == {}


def test_the_backbone_is_left_as_it_was(labelled: Path, tmp_path: Path) -> None:
    network = create_backbone("test_resnet", seed=0)
    network.net.train()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    embed(network, open_images(labelled), tmp_path / "f.parquet", EmbedConfig(size=SIZE))
    assert network.net.training
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())


# --- read by others -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["float32", "float16"])
def written(request: pytest.FixtureRequest, labelled: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("written") / "f.parquet"
    return embed("timm:test_resnet", labelled, out, EmbedConfig(of="boxes", size=SIZE, dtype=request.param))


def test_pandas_reads_it(written: Path) -> None:
    frame = pandas.read_parquet(written)
    assert list(frame["class_name"]) == ["ant"] * 3 + ["bee"] * 2 + ["cat"] * 2
    assert np.array_equal(np.stack(frame["feature"].tolist()), read(written)[1])


def test_polars_reads_it(written: Path) -> None:
    polars = pytest.importorskip("polars", reason="polars is not installed")
    frame = polars.read_parquet(written)
    assert frame["id"].to_list() == read(written)[0]["id"].to_pylist()
    assert np.array_equal(np.array(frame["feature"].to_list(), dtype=np.float32), read(written)[1].astype(np.float32))


def test_duckdb_reads_it(written: Path) -> None:
    duckdb = pytest.importorskip("duckdb", reason="duckdb is not installed")
    found = duckdb.sql(f"select class_name, feature from '{written}'").fetchall()
    assert [name for name, _ in found] == read(written)[0]["class_name"].to_pylist()
    assert np.array_equal(np.array([own for _, own in found], dtype=np.float32), read(written)[1].astype(np.float32))


def test_the_example_finds_the_nearest(labelled: Path, tmp_path: Path) -> None:
    out = embed(Pixels(), labelled, tmp_path / "f.parquet", EmbedConfig(of="masks"))
    example = Path(__file__).parents[2] / "examples" / "nearest_neighbours.py"
    command = [sys.executable, str(example), str(out), "--query", "bee000.png", "--k", "3"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    lines = [line for line in done.stdout.splitlines() if ".png" in line]
    assert "most similar to bee000.png" in lines[0]
    assert "bee001.png" in lines[1] and len(lines) == 4


# --- errors before the work -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"level": -6}, "has 5 maps, so none is number -6"),
        ({"level": 0}, "so none is number 0"),
        ({"size": 16}, r"too small for map -1 .*\n.*--size 32 or more.*--level -2"),
        ({"size": 32, "of": "boxes"}, r"too small for regions.*\n.*--size 64 or more"),
        ({"regions": "nothing.parquet"}, "no such regions file"),
        ({"regions": "nothing.parquet", "of": "images"}, "features of whole images are asked for"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"channels": 0}, "channels is 0"),
        ({"max_bad_share": 2.0}, "max_bad_share is 2.0"),
    ],
)
def test_options_that_cannot_be(labelled: Path, options: dict, problem: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=problem):
        embed("timm:test_resnet", labelled, tmp_path / "out" / "f.parquet", EmbedConfig(**options))
    assert not (tmp_path / "out").exists()


def test_a_network_that_takes_no_such_images(labelled: Path, tmp_path: Path) -> None:
    class Unpadded(Pixels):
        def maps(self, images: torch.Tensor) -> list[torch.Tensor]:
            return [torch.nn.functional.avg_pool2d(images, 65)]

    with pytest.raises(InputError, match=r"images of 64 px do not pass through 'pixels' .*\n.*another --size"):
        embed(Unpadded(), labelled, tmp_path / "out" / "f.parquet")
    assert not (tmp_path / "out").exists()


def test_data_that_cannot_be(labelled: Path, tmp_path: Path) -> None:
    out = tmp_path / "f.parquet"
    with pytest.raises(InputError, match="no annotations"):
        embed("timm:test_resnet", labelled / "images", out, EmbedConfig(of="boxes"))
    write_part(tmp_path / "boxes", {"ant": 2}, 0, masks=False)
    with pytest.raises(InputError, match=r"without masks only.*\n.*--of boxes"):
        embed("timm:test_resnet", tmp_path / "boxes", out, EmbedConfig(of="masks"))
    document = json.loads((labelled / "annotations.json").read_text()) | {"annotations": []}
    (tmp_path / "boxes" / "annotations.json").write_text(json.dumps(document | {"images": document["images"][:2]}))
    with pytest.raises(InputError, match="has no objects"):
        embed("timm:test_resnet", tmp_path / "boxes", out, EmbedConfig(of="boxes"))


def test_regions_of_other_data_and_regions_without_masks(labelled: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    write_part(other, {"dog": 2}, 1)
    regions = tmp_path / "r.parquet"
    compute_regions(open_images(other), RegionsConfig(method="grid", workers=1, label_maps=False), regions)
    with pytest.raises(InputError, match="has no regions for 7 of 7 images"):
        embed("timm:test_resnet", labelled, tmp_path / "f.parquet", EmbedConfig(regions=str(regions)))
    with pytest.raises(InputError, match="boxes only, no masks"):
        embed("timm:test_resnet", other, tmp_path / "f.parquet", EmbedConfig(regions=str(regions), of="masks"))


def test_places_that_cannot_be_written(labelled: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match="cannot be made a folder"):
        embed("timm:test_resnet", labelled, tmp_path / "file" / "f.parquet", EmbedConfig(size=SIZE))
    with pytest.raises(InputError, match=r"is a folder.*\n.*features\.parquet"):
        embed("timm:test_resnet", labelled, tmp_path, EmbedConfig(size=SIZE))


def test_features_that_are_not_finite_or_too_large(labelled: Path, tmp_path: Path) -> None:
    network = create_backbone("test_resnet", seed=0)
    with torch.no_grad():
        next(network.parameters())[:] = float("nan")
    with pytest.raises(D3sslError, match="not finite"):
        embed(network, labelled, tmp_path / "f.parquet", EmbedConfig(size=SIZE))

    class Large(Pixels):
        def maps(self, images: torch.Tensor) -> list[torch.Tensor]:
            return [1e6 * found for found in super().maps(images)]

    with pytest.raises(D3sslError, match=r"too large for float16.*\n.*float32"):
        embed(Large(), labelled, tmp_path / "g.parquet", EmbedConfig(dtype="float16"))
