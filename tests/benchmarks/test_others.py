"""The rows of lightly's parts: whose keys they are, repeatable views, and a training that goes on where it stopped."""

from __future__ import annotations

import math
import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from benchmarks.scenes_table import others
from d3ssl.methods.hosts import Soco
from d3ssl.models.backbone import create_backbone
from d3ssl.models.load import load_backbone
from d3ssl.train import CanvasConfig, ModelConfig, RunConfig, RuntimeConfig, TrainConfig
from d3ssl.train.optimizer import OptimizerConfig
from d3ssl.views import ViewsConfig


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    photos, generator = tmp_path / "photos", np.random.default_rng(0)
    photos.mkdir()
    for number in range(8):
        small = Image.fromarray(generator.integers(0, 256, (12, 16, 3), dtype=np.uint8))
        small.resize((96, 72), Image.Resampling.BILINEAR).save(photos / f"{number}.png")
    return RunConfig(
        data=str(photos),
        out=str(tmp_path / "run"),
        canvas=CanvasConfig(size=64),
        views=ViewsConfig(size=64),
        model=ModelConfig(backbone="test_resnet"),
        host=Soco(region_path="c3", projector_hidden=32, projector_out=16),
        optimizer=OptimizerConfig(name="adamw", lr=1e-3),
        train=TrainConfig(steps=4, batch_size=4),
        runtime=RuntimeConfig(device="cpu", workers=0, log_every=1, save_every=100, tensorboard=False),
    )


def _densecl(config: RunConfig) -> others.DenseCl:
    torch.manual_seed(0)
    return others.DenseCl(create_backbone("test_resnet"), config).train()


def test_the_keys_come_from_the_momentum_encoder(config: RunConfig) -> None:
    method, images = _densecl(config), torch.randn(2, 4, 3, 64, 64)
    before = [head.weight.clone() for head in _linear(method.teacher.head)]
    loss, _ = method(images[0], images[1])
    loss.backward()
    assert all(parameter.grad is None for parameter in method.teacher.parameters())
    assert any(parameter.grad is not None and parameter.grad.any() for parameter in method.student.parameters())
    with torch.no_grad():
        for weight in (head.weight for head in _linear(method.student.head)):
            weight.add_(1.0)
    method.update(0.75)
    for old, teacher, student in zip(before, _linear(method.teacher.head), _linear(method.student.head), strict=True):
        torch.testing.assert_close(teacher.weight, 0.75 * old + 0.25 * student.weight)


def test_another_momentum_encoder_gives_other_keys(config: RunConfig) -> None:
    images, losses = torch.randn(2, 4, 3, 64, 64), []
    for disturbed in (False, True):
        method = _densecl(config)  # with the same queues
        if disturbed:
            torch.nn.init.normal_(_linear(method.teacher.head)[-1].weight)
        losses.append(method(images[0], images[1])[0])
    assert not torch.isclose(*losses)


def _linear(head: torch.nn.Module) -> list[torch.nn.Linear]:
    return [module for module in head.modules() if isinstance(module, torch.nn.Linear)]


def test_cells_are_matched_with_the_most_similar_cell_of_the_same_image(
    config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By hand: for each of the query's cells, the key's cell of highest cosine, image by image."""
    method, images = _densecl(config), torch.randn(2, 4, 3, 96, 96)
    with torch.no_grad():
        _, query, _ = method.student(images[0])
        _, key, dense = method.teacher(images[1])
    seen: list[Tensor] = []
    monkeypatch.setattr(others, "dense_contrast", lambda query, key, *_: seen.append(key) or query.sum())
    with torch.no_grad():
        method(images[0], images[1])
    expected = []
    for image in range(4):
        for cell in query[image]:
            cosine = [float(torch.cosine_similarity(cell, other, dim=0)) for other in key[image]]
            expected.append(dense[image][max(range(len(cosine)), key=cosine.__getitem__)])
    torch.testing.assert_close(seen[0].flatten(0, 1), torch.stack(expected))


def test_the_dense_loss_is_a_cross_entropy_among_keys_of_other_images() -> None:
    """By hand, a cell at a time."""
    query, key, negatives = (
        torch.randn(2, 3, 5),
        torch.randn(2, 3, 5),
        torch.nn.functional.normalize(torch.randn(5, 7), dim=0),
    )
    losses = []
    for image in range(2):
        for cell in range(3):
            own = query[image, cell] / query[image, cell].norm()
            good = math.exp(float(own @ key[image, cell] / key[image, cell].norm()) / 0.2)
            bad = sum(math.exp(float(own @ negatives[:, place]) / 0.2) for place in range(7))
            losses.append(-math.log(good / (good + bad)))
    found = others.dense_contrast(query, key, negatives, 0.2)
    assert float(found) == pytest.approx(sum(losses) / 6, rel=1e-4)


def test_the_dense_queue_holds_one_key_of_each_image(config: RunConfig) -> None:
    """The mean of its cells' embeddings, after the step that made it."""
    method, images = _densecl(config), torch.randn(2, 4, 3, 64, 64)
    old = method.dense_queue.bank.clone()
    with torch.no_grad():
        _, cells, dense = method.teacher(images[1])
    method(images[0], images[1])
    assert cells.shape[1] == 16  # 4 × 4: the last map of 64 px has 2 × 2
    expected = torch.stack([own.mean(0) / own.mean(0).norm() for own in dense])
    torch.testing.assert_close(method.dense_queue.bank[:4], expected)
    torch.testing.assert_close(method.dense_queue.bank[4:], old[4:])


def test_views_depend_on_the_seed_and_the_number_only(config: RunConfig) -> None:
    training = others.Training("simclr", config)
    views = training._loader().dataset
    first = views[5]
    views[6]
    torch.testing.assert_close(views[5], first, rtol=0, atol=0)
    assert first[0].shape == (3, 64, 64) and not torch.equal(*first)
    assert not torch.equal(views[6][0], first[0])


@pytest.mark.parametrize("name", ["simclr", "densecl"])
def test_a_stopped_training_goes_on_as_if_it_had_not(name: str, config: RunConfig, tmp_path: Path) -> None:
    others.Training(name, config).finish()
    stopped = others.Training(name, replace(config, out=str(tmp_path / "stopped")))
    step = stopped._train_step

    def stop_after_two(one: Tensor, other: Tensor) -> tuple[float, Tensor]:
        result = step(one, other)
        if stopped.step == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return result

    stopped._train_step = stop_after_two  # type: ignore[method-assign]
    with pytest.raises(SystemExit):
        stopped.finish()
    assert not (tmp_path / "stopped" / "backbone.safetensors").exists()
    resumed = others.Training(name, replace(config, out=str(tmp_path / "stopped")))
    resumed.restore()
    assert resumed.step == 2
    resumed.finish()
    whole, parts = (load_file(tmp_path / folder / "backbone.safetensors") for folder in ("run", "stopped"))
    assert whole.keys() == parts.keys()
    for key, value in whole.items():
        torch.testing.assert_close(parts[key], value, rtol=0, atol=0)


def test_what_is_written_reads_as_a_run_and_as_a_network_of_timm(config: RunConfig, tmp_path: Path) -> None:
    others.Training("simclr", config).finish()
    backbone = load_backbone(tmp_path / "run")
    assert (backbone.region_path, backbone.roi_size) == ("c3", 7)
    net = timm.create_model("test_resnet", num_classes=0)
    net.load_state_dict(load_file(tmp_path / "run" / "backbone.safetensors"))
    lines = (tmp_path / "run" / "log.jsonl").read_text().splitlines()
    assert len(lines) == 4
