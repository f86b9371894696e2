"""Cut-outs and photographs: which files count, what class and theme they get, and that pixels come through."""

from dataclasses import replace
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
from PIL import Image

from d3ssl.data.scenes import ScenesConfig
from d3ssl.data.scenes.backgrounds import KINDS, ProceduralBackgrounds
from d3ssl.data.scenes.cutouts import CutoutObjects, NotUsable, name_classes, read_cutout
from d3ssl.data.scenes.photos import PhotoBackgrounds, deal_to_themes
from d3ssl.data.scenes.walk import find_pictures
from d3ssl.errors import InputError

STILL = ScenesConfig(size=256, rotation=0.0, flip=0.0, brightness=0.0)


def save_cutout(path: Path, colour: tuple[int, int, int], box: tuple[int, int, int, int] = (5, 8, 45, 58)) -> None:
    """A 60×70 image whose pixels within ``box`` (left, top, right, bottom) are opaque, but for one corner."""
    pixels = np.zeros((70, 60, 4), np.uint8)
    pixels[..., :3] = (1, 2, 3)
    left, top, right, bottom = box
    pixels[top:bottom, left:right] = (*colour, 255)
    pixels[top : top + 4, left : left + 4, 3] = 0
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def test_the_rule_for_classes() -> None:
    tree = tuple(map(PurePosixPath, ("birds/a.png", "birds/b.png", "birds/owls/c.png", "top.png")))
    assert name_classes(tree, "auto") == ("birds", "birds", "birds/owls", None)
    assert name_classes(tree, "folder") == ("birds", "birds", "birds/owls", None)
    assert name_classes(tree, "file") == ("birds/a", "birds/b", "birds/owls/c", "top")
    flat = tuple(map(PurePosixPath, ("a.png", "a.webp", "b.png")))
    assert name_classes(flat, "auto") == ("a.png", "a.webp", "b")


def test_finding_files(tmp_path: Path) -> None:
    for name in ("b/2.PNG", "b/1.png", "a.png", "b/cartoon/3.png", "c/x.txt", ".hidden/4.png", "d/deep/5.png"):
        (tmp_path / "root" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "root" / name).touch()
    (tmp_path / "root" / "b" / "loop").symlink_to(tmp_path / "root", target_is_directory=True)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "6.png").touch()
    (tmp_path / "root" / "e").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    found = find_pictures(tmp_path / "root", frozenset({".png"}), ("cartoon", "d/deep"))
    assert [path.as_posix() for path in found] == ["a.png", "b/1.png", "b/2.PNG", "e/6.png"]
    with pytest.raises(InputError, match="no such folder"):
        find_pictures(tmp_path / "missing", frozenset({".png"}), ())


def test_a_cutout_comes_through_pixel_by_pixel(tmp_path: Path) -> None:
    save_cutout(tmp_path / "one.png", (200, 40, 90))
    save_cutout(tmp_path / "two.png", (10, 240, 30))
    objects = CutoutObjects(replace(STILL, cutouts=str(tmp_path)))
    assert objects.names == ("one", "two")
    # the trimmed cut-out keeps a margin of one px: 42 × 52
    sprite = objects.render(0, float(np.sqrt(42 * 52)), np.random.default_rng(0))
    assert sprite.alpha.shape == (52, 42)
    expected = np.zeros((52, 42), np.uint8)
    expected[1:-1, 1:-1] = 255
    expected[1:5, 1:5] = 0
    assert np.array_equal(sprite.alpha, expected)
    assert np.array_equal(sprite.colour, np.where(expected[..., None] > 0, np.array([200, 40, 90], np.uint8), 0))


def test_augmentation_of_a_cutout(tmp_path: Path) -> None:
    save_cutout(tmp_path / "one.png", (100, 40, 90), (5, 8, 55, 38))  # the missing corner is on the left
    save_cutout(tmp_path / "two.png", (10, 240, 30))

    def render(**options: float) -> tuple[np.ndarray, np.ndarray]:
        config = replace(STILL, cutouts=str(tmp_path), **options)
        return CutoutObjects(config).render(0, 41.0, np.random.default_rng(3))[:2]

    plain, still = render()
    assert render(flip=1.0)[1].tolist() == still[:, ::-1].tolist()
    brightened = render(brightness=0.5)[0][15, 25] / plain[15, 25]
    assert brightened == pytest.approx(brightened[0], rel=0.03)  # all channels alike
    assert abs(brightened[0] - 1) > 0.02
    assert 0.49 < brightened[0] < 1.51
    turned = render(rotation=30.0)
    assert turned[1].shape != still.shape
    assert (turned[1] / 255).sum() == pytest.approx((still / 255).sum(), rel=0.03)
    assert (turned[0] <= turned[1][..., None]).all()


def test_files_without_an_outline_are_left_out_and_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_cutout(tmp_path / "things/good.png", (200, 40, 90))
    save_cutout(tmp_path / "others/good.png", (20, 40, 90))
    save_cutout(tmp_path / "loose.png", (20, 40, 90))
    save_cutout(tmp_path / "things/tiny.png", (20, 40, 90), (5, 5, 12, 12))
    Image.new("RGB", (40, 40)).save(tmp_path / "things/solid.png")
    Image.new("RGBA", (40, 40), (9, 9, 9, 255)).save(tmp_path / "things/opaque.png")
    Image.new("RGBA", (40, 40), (9, 9, 9, 0)).save(tmp_path / "things/clear.png")
    (tmp_path / "things/broken.png").write_bytes(b"no picture")
    objects = CutoutObjects(ScenesConfig(cutouts=str(tmp_path)))
    assert objects.names == ("others", "things")
    shown = " ".join(capsys.readouterr().err.split())
    assert "6 of 8 files" in shown
    for reason in ("beside the class folders", "too small", "no transparency", "wholly opaque", "unreadable"):
        assert f"1 {reason}" in shown
    with pytest.raises(InputError, match="num_classes = 3, but only 2"):
        CutoutObjects(ScenesConfig(cutouts=str(tmp_path), num_classes=3))
    with pytest.raises(InputError, match="at least 2"):
        CutoutObjects(ScenesConfig(cutouts=str(tmp_path), exclude=("others",)))
    with pytest.raises(InputError, match="holds no"):
        CutoutObjects(ScenesConfig(cutouts=str(tmp_path), exclude=("*",)))


def test_palette_with_a_transparent_colour_is_an_outline(tmp_path: Path) -> None:
    image = Image.new("P", (40, 40), 0)
    image.putpalette([0, 0, 0, 250, 120, 20])
    image.paste(1, (10, 10, 30, 30))
    image.save(tmp_path / "palette.png", transparency=0)
    sprite = read_cutout(tmp_path / "palette.png", 100.0)
    assert (sprite.alpha == 255).sum() == 400
    assert sprite.colour[10, 10].tolist() == [250, 120, 20]
    image.save(tmp_path / "none.png")
    with pytest.raises(NotUsable, match="no transparency"):
        read_cutout(tmp_path / "none.png", 100.0)


def test_folders_are_dealt_to_themes_whole() -> None:
    paths = tuple(PurePosixPath(f"{folder}/{number}.jpg") for folder in "abcdef" for number in range(3))
    dealt = deal_to_themes(paths, 3, np.random.default_rng(0))
    assert [len(groups) for groups in dealt] == [2, 2, 2]
    folders = [{path.parts[0] for group in groups for path in group} for groups in dealt]
    assert sorted(name for names in folders for name in names) == list("abcdef")
    single = deal_to_themes(paths[:6], 3, np.random.default_rng(0))  # two folders only: files are dealt
    assert sorted(path for groups in single for group in groups for path in group) == list(paths[:6])
    assert [len(groups) for groups in single] == [2, 2, 2]
    with pytest.raises(InputError, match="1 usable photographs for 2 themes"):
        deal_to_themes(paths[:1], 2, np.random.default_rng(0))


def test_crops_of_photographs_keep_the_aspect_ratio_and_the_theme(tmp_path: Path) -> None:
    """Red grows with x and green with y, both in px of the photograph; blue tells the file."""
    y, x = np.mgrid[:200, :400]
    for number in range(4):
        pixels = np.stack([x / 2, y / 2, np.full_like(x, 60 * number)], axis=-1).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    backgrounds = PhotoBackgrounds(ScenesConfig(backgrounds=str(tmp_path), themes=2, size=64))
    seen = []
    for theme in range(2):
        files = set()
        for seed in range(20):
            background = backgrounds.render(theme, (), np.random.default_rng(seed))
            assert background is not None
            crop = background.image.astype(float)
            assert crop.shape == (64, 64, 3)
            across = abs(crop[:, -5, 0].mean() - crop[:, 4, 0].mean())
            down = crop[-5, :, 1].mean() - crop[4, :, 1].mean()
            assert across == pytest.approx(down, abs=2.5)
            assert 0.45 * 100 * 0.85 - 2.5 < down < 100  # share of the shorter side that the crop covers
            files.add(round(crop[..., 2].mean() / 60))
        seen.append(files)
    assert seen[0] | seen[1] == {0, 1, 2, 3}
    assert not seen[0] & seen[1]
    with pytest.raises(InputError, match="4 usable photographs for 6 themes"):
        PhotoBackgrounds(ScenesConfig(backgrounds=str(tmp_path)))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [32, 65])
def test_kinds_of_procedural_backgrounds_stay_in_range_and_vary(kind, size: int) -> None:
    fields = [kind(size, np.random.default_rng(seed)) for seed in range(6)]
    for field in fields:
        assert field.shape == (size, size)
        assert field.min() > -0.5
        assert field.max() < 1.5
        assert field.std() > 0.01
    assert not np.array_equal(fields[0], fields[1])


def test_themes_differ_in_colour_more_than_backgrounds_of_one_theme() -> None:
    backgrounds = ProceduralBackgrounds(ScenesConfig(size=32))
    rng = np.random.default_rng(0)
    means = np.array(
        [[backgrounds.render(t, (), rng).image.reshape(-1, 3).mean(0) for _ in range(30)] for t in range(6)]
    )
    chroma = means - means.mean(-1, keepdims=True)
    assert chroma.mean(1).std(0).mean() > chroma.std(1).mean()
