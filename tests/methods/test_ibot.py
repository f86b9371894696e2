"""iBOT: what is hidden from the student, what counts, and what cannot be trained so."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F

from d3ssl.errors import InputError
from d3ssl.methods import DecoupleConfig, Learner, decouple
from d3ssl.methods.losses.prototypes import PrototypeCentre
from d3ssl.models.backbone import create_backbone
from d3ssl.models.readers import Patch, Token
from d3ssl.train.pretrain import pretrain
from tests.methods.examples import make_learner, make_views, tiny_plan
from tests.train.conftest import make_photos
from tests.train.examples import make_config


def rows_of(learner: Learner, network: str, view: Any, head: str) -> torch.Tensor:
    return getattr(learner, network)(view, make_views(learner.plan).slots, [head])[head]


def test_the_loss_written_out() -> None:
    """[CLS] tokens crossed, hidden patches of the same crop, copies of the last two images on their own patches."""
    plan = tiny_plan("ibot", "DC", patch_weight=0.5)
    learner, views = make_learner(plan).eval(), make_views(plan)
    with torch.no_grad():
        for name in learner.memories:
            own = learner.memories[name]
            assert isinstance(own, PrototypeCentre)
            own.centre.copy_(torch.rand(24) / 10)
        parts = learner(views, 0.05).parts

        def cross_entropy(student: str, teacher: str, head: str) -> torch.Tensor:
            s = rows_of(learner, "student", views.views[student], head)
            t = rows_of(learner, "teacher", views.views[teacher], head)[-len(s) :]
            target = ((t - learner.memories[head].get_buffer("centre")) / 0.055).softmax(1)
            return -(target * (s / 0.1).log_softmax(1)).sum(1)

        token = (cross_entropy("x1_hidden", "x2", "token") + cross_entropy("x2_hidden", "x1", "token")).mean() / 2
        patch, copies = 0.0, 0.0
        for name in ("x1", "x2"):
            hidden = views.views[f"{name}_hidden"].hidden
            losses = cross_entropy(f"{name}_hidden", name, "patch").view(4, 4, 4)
            patch += 0.25 * float(torch.stack([own[h].mean() for own, h in zip(losses, hidden, strict=True)]).mean())  # type: ignore[arg-type]
            mixed = views.views[f"{name}_cut"].hidden
            losses = cross_entropy(f"{name}_cut", name, "patch").view(2, 4, 4)
            copies += 0.15 * float(torch.stack([own[~h].mean() for own, h in zip(losses, mixed, strict=True)]).mean())  # type: ignore[arg-type]
    assert float(parts["loss_token"]) == pytest.approx(float(token), abs=1e-4)
    assert float(parts["loss_patch"]) == pytest.approx(patch, abs=1e-4)
    assert float(parts["loss_decoupling"]) == pytest.approx(copies, abs=1e-4)


def test_the_student_sees_the_mask_token_or_another_image_s_patches_without_a_gradient() -> None:
    plan = tiny_plan("ibot", "DC")
    learner, views = make_learner(plan), make_views(plan)
    network, patches = learner.student, torch.randn(4, 4, 4, 64, requires_grad=True)
    assert network.mask_token is not None
    with torch.no_grad():
        network.mask_token.fill_(7.0)
    view = views.views["x1_hidden"]
    assert view.hidden is not None
    change = network._change(view)
    assert change is not None
    found = change(patches)
    assert (found[view.hidden] == 7).all() and torch.equal(found[~view.hidden], patches[~view.hidden])
    cut = views.views["x1_cut"]
    assert cut.hidden is not None
    change = network._change(cut)
    assert change is not None
    found = change(patches[:2])
    assert torch.equal(found[0][cut.hidden[0]], patches[1][cut.hidden[0]])
    found.sum().backward()
    assert patches.grad is not None and torch.equal(patches.grad[:2, ..., 0], (~cut.hidden).float())
    assert network._change(views.views["x1"]) is None


def test_an_image_without_hidden_patches_counts_nothing_and_the_others_the_same() -> None:
    learner = make_learner(tiny_plan("ibot"))
    hidden = torch.zeros(4, 4, 4, dtype=torch.bool)
    hidden[1, 0, 0] = hidden[2, :2] = True
    view = dataclasses.replace(make_views(learner.plan).views["x1_hidden"], hidden=hidden)
    weight = learner.student.reader("patch").weigh(view)
    assert weight is not None
    assert weight.view(4, 16).sum(1).tolist() == [0.0, 16.0, 16.0, 0.0]
    assert weight.view(4, 16).max(1).values.tolist() == [0.0, 16.0, 2.0, 0.0]


def test_copies_are_left_out_of_the_class_token_s_loss() -> None:
    plan = tiny_plan("ibot", "DC")
    seen = {name: {pair.student for pair in own.pairs} for name, own in plan.objectives.items()}
    assert seen == {
        "token": {"x1_hidden", "x2_hidden"},
        "patch": {"x1_hidden", "x2_hidden"},
        "decoupling": {"x1_cut", "x2_cut"},
    }
    assert plan.views["x1_cut"].share == 0.25
    with pytest.raises(
        InputError, match=r"--dc\.cutout, --dc\.teacher: the plan 'ibot' cuts its views in a way of its own"
    ):
        decouple(tiny_plan("ibot"), DecoupleConfig(cutout=0.5, teacher="cut"))


def test_one_head_two_centres_and_the_network_s_own_weights() -> None:
    learner = make_learner(tiny_plan("ibot", "DC DP"))
    assert set(learner.student.projectors) == {"token", "deposition"}
    assert set(learner.memories) == {"token", "patch"}
    assert learner.backbone.named_weights().keys() == timm.create_model("test_vit", num_classes=0).state_dict().keys()
    assert make_learner(tiny_plan("byol"), "test_vit").student.mask_token is None


def test_tokens_are_those_of_the_network_s_own_pass() -> None:
    for name in ("test_vit", "test_vit3", "vit_tiny_patch16_224"):
        backbone = create_backbone(name, seed=0).eval()
        images = torch.randn(2, 3, 48, 64)
        with torch.no_grad():
            found = backbone.features(images, ["tokens", "map"])
            torch.testing.assert_close(found["map"][0], backbone.maps(images)[-1], atol=1e-5, rtol=1e-5)
            whole = backbone.net.forward_features(images)  # type: ignore[operator]
        torch.testing.assert_close(found["tokens"][1], whole[:, 0], atol=1e-5, rtol=1e-5)
        assert F.cosine_similarity(found["tokens"][1], found["map"][0].mean((2, 3))).max() < 0.999


@pytest.mark.parametrize(
    "network",
    ["test_resnet", "test_convnext", "test_vit2", "vit_base_patch16_siglip_224", "swin_tiny_patch4_window7_224"],
)
def test_networks_without_patches_or_a_class_token(network: str) -> None:
    backbone = create_backbone(network)
    for reader in (Token(), Patch()):
        with pytest.raises(InputError, match=rf"'{network}' is no plain ViT with a \[CLS\] token(.|\n)*vit_small"):
            reader.build(backbone)


@pytest.mark.parametrize(
    ("options", "size", "message"),
    [
        ({}, 72, "72 px does not divide into patches of 16 px"),
        ({"patch": 8}, 64, r"hides patches of 8 px, but those of 'test_vit' are 16 px(.|\n)*--host\.patch 16"),
        ({"local_crops": 1, "local_size": 40}, 64, "40 px does not divide"),
    ],
)
def test_patches_that_do_not_fit(options: dict[str, Any], size: int, message: str) -> None:
    plan = tiny_plan("ibot", size=size, **options)
    plan.check()
    with pytest.raises(InputError, match=message):
        plan.check_backbone(create_backbone("test_vit"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prototypes": 10**6}, "1000000 prototypes"),
        ({"local_crops": -1}, r"host\.local_crops -1"),
        ({"hidden_ratio": 0.9}, "ratio of hidden patches"),
    ],
)
def test_impossible_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        tiny_plan("ibot", **options)


def test_a_cnn_is_refused_before_any_image_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise AssertionError("an image was read")

    monkeypatch.setattr("d3ssl.regions.compute.find_in_file", fail)
    monkeypatch.setattr("d3ssl.train.loader.read_canvas", fail)
    config = make_config("ibot")
    model = dataclasses.replace(config.model, backbone="test_resnet")
    photos = make_photos(tmp_path / "photos", 4)
    with pytest.raises(InputError, match="'test_resnet' is no plain ViT"):
        pretrain(dataclasses.replace(config, model=model, data=str(photos), out=str(tmp_path / "run")))
    assert not (tmp_path / "run").exists()
