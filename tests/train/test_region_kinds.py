"""Regions that a plan cannot read are refused before they are computed."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from d3ssl.errors import InputError
from d3ssl.methods import MethodConfig
from d3ssl.methods.hosts import Detcon
from d3ssl.regions.config import RegionsConfig
from d3ssl.train.config import RunConfig, TrainConfig, check
from d3ssl.train.pretrain import check_before, pretrain
from d3ssl.train.region_kinds import check_counts
from d3ssl.views.view import ViewsConfig
from tests.methods.examples import HOSTS
from tests.train.conftest import make_photos


def config(modules: bool = False, views: ViewsConfig | None = None, **proposals: Any) -> RunConfig:
    return RunConfig(
        data="unused",
        out="unused",
        method=MethodConfig(host="detcon", decouple=modules, deposition=modules),
        host=HOSTS["detcon"],
        views=views or ViewsConfig(size=32),
        proposals=RegionsConfig(**proposals),
    )


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (config(), r"reads masks, and --proposals\.method selective-search gives boxes only(.|\n)*filter false"),
        (config(method="grid", label_maps=False), "label_maps false gives boxes only"),
        (config(True, method="felzenszwalb"), r"would find no background(.|\n)*contrast(.|\n)*decouple"),
        (config(True, method="slic"), "would find no background"),
        (config(method="grid", grid_rows=1, grid_columns=1), "a partition of one segment is the image"),
        (config(method="slic", slic_segments=1), "a partition of one segment is the image"),
        (config(method="felzenszwalb", max_regions=1), "a partition of one segment is the image"),
        (config(method="grid", views=ViewsConfig(regions_per_image=1)), r"one segment per image(.|\n)*DetCon: 16"),
    ],
)
def test_the_wrong_kind_is_one_clear_error(run: RunConfig, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        check_before(run)
    assert caught.value.remedy


@pytest.mark.parametrize(
    "run",
    [config(method="felzenszwalb"), config(True, method="contrast"), config(True, method="annotations")],
)
def test_the_right_kind_passes(run: RunConfig) -> None:
    check_before(run)


def test_a_queue_smaller_than_the_batch() -> None:
    run = config(method="grid")
    run = replace(run, method=MethodConfig(host="densecl", decouple=False), host=HOSTS["densecl"])  # 24 keys
    check(replace(run, train=TrainConfig(batch_size=24)), 1)
    with pytest.raises(InputError, match=r"26 keys, but the queue holds 24(.|\n)*host\.queue"):
        check(replace(run, train=TrainConfig(batch_size=26)), 1)


def test_it_is_told_before_any_image_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photos = make_photos(tmp_path / "photos", 4)

    def fail(*_: Any, **__: Any) -> None:
        raise AssertionError("an image was read")

    monkeypatch.setattr("d3ssl.regions.compute.find_in_file", fail)
    monkeypatch.setattr("d3ssl.train.loader.read_canvas", fail)
    with pytest.raises(InputError, match="gives boxes only"):
        pretrain(replace(config(), data=str(photos), out=str(tmp_path / "run")))
    assert not (tmp_path / "run").exists()


def test_a_partition_that_turns_out_to_be_one_segment() -> None:
    plan = Detcon().plan(32, ViewsConfig())
    check_counts(plan, [1, 2, 1])
    with pytest.raises(InputError, match="partition of one segment"):
        check_counts(plan, np.ones(3, dtype=int).tolist())
    check_counts(replace(plan, partition=False), [1])
