"""``Backbone.features``: the maps of several levels in one pass."""

from typing import Any

import pytest
import torch

from d3ssl.errors import InputError
from d3ssl.models.backbone import create_backbone


@pytest.mark.parametrize("needs", [["c3"], ["c4"], ["map"], ["c3", "c4"], ["c4", "map"], ["c3", "c4", "map"]])
def test_features_run_each_stage_once_and_no_deeper_than_asked(needs: list[Any]) -> None:
    backbone = create_backbone("test_resnet", seed=0).eval()
    images, runs = torch.randn(2, 3, 64, 64), []
    with torch.no_grad():
        expected = {
            level: backbone.maps(images) if level == "map" else [backbone.trunk(images, level)] for level in needs
        }
        for name in ("layer1", "layer2", "layer3", "layer4"):
            backbone.net.get_submodule(name).register_forward_hook(lambda *_, name=name: runs.append(name))
        found = backbone.features(images, needs)
    assert found.keys() == set(needs)
    for level in needs:
        assert all(torch.equal(a, b) for a, b in zip(found[level], expected[level], strict=True))
    depth = 4 if "map" in needs else 3 if "c4" in needs else 2
    assert runs == ["layer1", "layer2", "layer3", "layer4"][:depth]


def test_features_of_a_vit_are_its_maps() -> None:
    backbone = create_backbone("test_vit", seed=0).eval()
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(backbone.features(images, ["map"])["map"][0], backbone.maps(images)[0])
    with pytest.raises(InputError, match="region path c4"):
        backbone.features(images, ["c4"])
