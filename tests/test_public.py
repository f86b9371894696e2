"""The names that code outside the project relies on."""

import subprocess
import sys

import pytest
import torch


def test_public_names_are_there_after_a_plain_import() -> None:
    code = (
        "import d3ssl, sys\nassert 'torch' not in sys.modules\n"
        "assert callable(d3ssl.load_backbone) and callable(d3ssl.pretrain) and callable(d3ssl.diagnose)\n"
        "assert callable(d3ssl.embed)\n"
        "d3ssl.views.region_collaborative_cutout, d3ssl.views.mix_background, d3ssl.views.shift_foreground\n"
        "d3ssl.views.ViewMaker, d3ssl.diagnose.sensitivity, d3ssl.evaluate.object_knn, d3ssl.RunConfig\n"
        "d3ssl.methods.HOSTS, d3ssl.methods.decouple, d3ssl.methods.deposition\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_unknown_name_is_an_attribute_error() -> None:
    import d3ssl

    with pytest.raises(AttributeError, match="no attribute"):
        d3ssl.no_such_name  # noqa: B018


def test_signatures_of_the_three_strategies() -> None:
    import d3ssl

    generator = torch.Generator().manual_seed(0)
    boxes, valid = torch.tensor([[[4.0, 4.0, 20.0, 20.0]]] * 2), torch.ones(2, 1, dtype=torch.bool)
    keep = d3ssl.views.region_collaborative_cutout(boxes, valid, (32, 32), 0.3, generator=generator)
    assert keep.shape == (2, 1, 32, 32)
    assert keep.dtype == torch.bool
    images = torch.rand(2, 3, 32, 32)
    assert d3ssl.views.mix_background(images, keep, backgrounds=None, generator=generator).shape == images.shape
    moved, shown, places = d3ssl.views.shift_foreground(images, keep, boxes, valid, generator=generator)
    assert (moved.shape, shown.shape, places.shape) == (images.shape, keep.shape, boxes.shape)
