"""Maps and regions of many timm networks against the networks' own forward passes."""

import copy
import subprocess
import sys
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

from d3ssl.errors import InputError
from d3ssl.models.backbone import Backbone, create_backbone

CNNS = [
    "resnet10t",
    "regnety_002",
    "efficientnet_lite0",
    "convnext_atto",
    "mobilenetv3_small_050",
    "mobilenetv4_conv_small_035",
    "densenet121",
    "repvgg_a0",
    "test_resnet",
    "test_nfnet",
    "test_byobnet",
]
OTHERS = ["test_vit", "vit_tiny_patch16_224", "swin_tiny_patch4_window7_224", "hrnet_w18_small", "mixer_s32_224"]


def own_maps(net: nn.Module, images: Tensor) -> list[Tensor]:
    """The maps as they pass by in the network's own whole forward pass."""
    seen: dict[str, Tensor] = {}
    names = [stage["module"] for stage in net.feature_info]  # type: ignore[union-attr]

    def keep(name: str) -> Any:
        return lambda module, args, out: seen.update({name: out.clone()})

    hooks = [net.get_submodule(name).register_forward_hook(keep(name)) for name in names]
    net(images)
    for hook in hooks:
        hook.remove()
    return [seen[name] for name in names]


@pytest.mark.parametrize("name", CNNS)
def test_c4_is_the_networks_own_forward_pass(name: str) -> None:
    backbone = create_backbone(name, seed=0).eval()
    images = torch.randn(2, 3, 96, 64)
    with torch.no_grad():
        maps, own = backbone.maps(images), own_maps(backbone.net, images)
        trunk = backbone.trunk(images)
        last = backbone.tail(trunk)
    assert backbone.supports_c4
    assert [tuple(m.shape) for m in maps] == [
        (2, c, 96 // s, 64 // s) for c, s in zip(backbone.channels, backbone.strides, strict=True)
    ]
    for found, expected in zip(maps, own, strict=True):
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(trunk, own[-2], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(last, own[-1], atol=1e-5, rtol=1e-5)
    assert all(m.is_contiguous(memory_format=torch.channels_last) for m in [*maps, trunk, last])


@pytest.mark.parametrize("name", ["resnet18", "test_resnet", "regnetx_002", "convnext_atto"])
def test_c3_is_the_networks_own_forward_pass(name: str) -> None:
    backbone = create_backbone(name, seed=0).eval()
    images = torch.randn(2, 3, 96, 64)
    with torch.no_grad():
        own = own_maps(backbone.net, images)
        trunk = backbone.trunk(images, "c3")
        last = backbone.tail(trunk, "c3")
    torch.testing.assert_close(trunk, own[-3], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(last, own[-1], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", [*CNNS, *OTHERS])
def test_every_network_reads_regions_and_keeps_timms_keys(name: str) -> None:
    backbone = create_backbone(name, seed=0).eval()
    side = backbone.layout.fixed_size[0] if backbone.layout.fixed_size else 64
    boxes = [
        torch.tensor([[4.0, 4.0, 40.0, 60.0]]),
        torch.zeros(0, 4),
        torch.tensor([[0.0, 0, 64, 64], [9, 9, 20, 20]]),
    ]
    with torch.no_grad():
        rows = backbone.pool(torch.randn(3, 3, side, side), boxes)
    assert rows.shape == (3, backbone.num_features)
    assert torch.isfinite(rows).all()
    assert rows.std() > 0
    plain = timm.create_model(name, num_classes=0)
    assert not any(plain.load_state_dict(backbone.net.state_dict(), strict=True))


def test_vit_map_is_the_grid_of_normalised_patch_tokens() -> None:
    backbone = create_backbone("test_vit", seed=0).eval()
    images = torch.randn(2, 3, 64, 96)
    (grid,) = backbone.maps(images)
    tokens = backbone.net.forward_features(images)  # type: ignore[operator]
    tokens = tokens[:, tokens.shape[1] - 4 * 6 :]
    torch.testing.assert_close(grid, tokens.transpose(1, 2).reshape(2, -1, 4, 6))
    assert (backbone.strides, backbone.region_path, backbone.supports_c4) == ([16], "map", False)
    with pytest.raises(InputError, match=r"region path c4.*\n.*map"):
        backbone.trunk(images)


@pytest.mark.parametrize("name", ["test_vit", "vit_tiny_patch16_224"])
def test_vit_takes_sizes_that_are_no_multiple_of_the_patch(name: str) -> None:
    assert create_backbone(name).maps(torch.randn(1, 3, 56, 40))[0].shape[2:] == (4, 3)


def test_pool_map_is_the_mean_of_the_last_map_over_the_box() -> None:
    """A box that covers whole cells reads them exactly where the map is linear; here: constant in each cell's box."""
    backbone = create_backbone("test_resnet", seed=0).eval()
    images = torch.randn(1, 3, 128, 128)
    with torch.no_grad():
        last = backbone.maps(images)[-1]
        whole = backbone.pool(images, [torch.tensor([[0.0, 0, 128, 128]])], region_path="map")
        tiny = backbone.pool(images, [torch.tensor([[47.99, 79.99, 48.01, 80.01]])], region_path="map")
    torch.testing.assert_close(tiny[0], last[0, :, 2, 1], atol=1e-3, rtol=1e-3)
    assert whole.shape == (1, 96)
    assert (whole[0] - last.mean((2, 3))[0]).abs().max() < 0.5 * last.mean((2, 3)).abs().max()


def test_pool_order_and_independence_of_other_boxes() -> None:
    backbone = create_backbone("test_resnet", seed=0).eval()
    images = torch.randn(2, 3, 64, 64)
    first, second = torch.tensor([[0.0, 0, 32, 32], [8, 8, 60, 60]]), torch.tensor([[16.0, 0, 64, 40]])
    with torch.no_grad():
        rows = backbone.pool(images, [first, second])
        alone = [backbone.pool(images[:1], [first[:1]]), backbone.pool(images[:1], [first[1:]])]
        alone.append(backbone.pool(images[1:], [second]))
    torch.testing.assert_close(rows, torch.cat(alone), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", [*CNNS, "test_vit"])
def test_pool_without_any_box_keeps_the_way_of_the_gradient(name: str) -> None:
    backbone = create_backbone(name).eval()
    rows = backbone.pool(torch.randn(2, 3, 64, 64), [torch.zeros(0, 4)] * 2)
    assert rows.shape == (0, backbone.num_features)
    rows.sum().backward()
    without = [key for key, parameter in backbone.net.named_parameters() if parameter.grad is None]
    assert without == backbone.unused_parameters


def test_a_strided_pointwise_stem_trains() -> None:
    """In a process of its own: where oneDNN writes beyond its memory, the process dies or loses its heap."""
    code = (
        "import timm, torch\n"
        "from d3ssl.models import create_backbone\n"
        "plain = timm.create_model('repvgg_a0', num_classes=0).double().eval()\n"
        "backbone = create_backbone('repvgg_a0').eval()\n"
        "backbone.net.load_state_dict(plain.state_dict())\n"
        "images = torch.randn(2, 3, 64, 64)\n"
        "last = backbone.maps(images)[-1]\n"
        "last.sum().backward()\n"
        "wanted = plain.forward_features(images.double())\n"
        "wanted.sum().backward()\n"
        "torch.testing.assert_close(last, wanted.float(), atol=1e-4, rtol=1e-4)\n"
        "name = 'stem.conv_1x1.conv.weight'\n"
        "mine, theirs = (net.get_parameter(name).grad for net in (backbone.net, plain))\n"
        "torch.testing.assert_close(mine, theirs.float(), atol=1e-2, rtol=1e-3)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_modes_of_batch_norm() -> None:
    backbone = create_backbone("test_resnet")
    state = copy.deepcopy(backbone.net.state_dict())
    images = torch.randn(2, 3, 64, 64)
    backbone.eval().maps(images)
    assert all(torch.equal(state[key], value) for key, value in backbone.net.state_dict().items())
    backbone.train().maps(images)
    assert not torch.equal(state["layer4.0.bn1.running_mean"], backbone.net.state_dict()["layer4.0.bn1.running_mean"])


def test_creation_leaves_batch_statistics_and_global_randomness_alone() -> None:
    before = torch.random.get_rng_state()
    backbone = create_backbone("test_resnet", seed=1)
    assert torch.equal(before, torch.random.get_rng_state())
    assert backbone.training
    assert int(backbone.net.state_dict()["bn1.num_batches_tracked"]) == 0
    assert backbone.has_batch_norm
    assert not create_backbone("test_vit").has_batch_norm


def test_seed_decides_the_weights() -> None:
    def weight(seed: int | None) -> Tensor:
        return create_backbone("test_resnet", seed=seed).net.state_dict()["layer4.0.conv1.weight"]

    torch.manual_seed(1)
    first = weight(3)
    torch.manual_seed(2)
    assert torch.equal(first, weight(3))
    assert not torch.equal(first, weight(4))
    torch.manual_seed(5)
    free = weight(None)
    torch.manual_seed(5)
    assert torch.equal(free, weight(None))


def test_modules_may_be_replaced_and_copied() -> None:
    """Nothing holds on to the modules themselves: a replaced one is used, a copy is independent."""
    backbone = create_backbone("test_resnet", seed=0).eval()
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        before = backbone.maps(images)[-1]
        other = copy.deepcopy(backbone)
        other.net.act1 = nn.Hardtanh()
        assert not torch.equal(other.maps(images)[-1], before)
        other.net.conv1[0].weight.zero_()  # type: ignore[index, union-attr]
        assert torch.equal(backbone.maps(images)[-1], before)


@pytest.mark.parametrize("name", ["efficientnet_lite0", "convnext_atto", "test_resnet", "test_vit", "hrnet_w18_small"])
def test_unused_parameters_are_those_without_gradient(name: str) -> None:
    backbone = create_backbone(name, seed=0).eval()
    sum(m.sum() for m in backbone.maps(torch.randn(1, 3, 64, 64))).backward()  # type: ignore[union-attr]
    without = [key for key, parameter in backbone.net.named_parameters() if parameter.grad is None]
    assert backbone.unused_parameters == without


@pytest.mark.parametrize("channels", [1, 2, 5])
def test_other_numbers_of_channels(channels: int) -> None:
    for name in ("test_resnet", "test_vit"):
        backbone = create_backbone(name, in_channels=channels).eval()
        assert len(backbone.mean) == len(backbone.std) == channels
        assert backbone.maps(torch.randn(1, channels, 64, 64))[-1].shape[0] == 1
        with pytest.raises(InputError, match="images of 4 channels"):
            backbone.maps(torch.randn(1, 4, 64, 64))


def test_a_network_of_fixed_size_says_so() -> None:
    backbone = create_backbone("mixer_s32_224", image_size=224)
    with pytest.raises(InputError, match=r"only images of 224 × 224 px, not 64 × 64"):
        backbone.maps(torch.randn(1, 3, 64, 64))
    with pytest.raises(InputError, match="only images of 224"):
        create_backbone("mixer_s32_224", image_size=64)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet_18", "did you mean 'resnet"),
        ("resnet18.a1_in2k", "did you mean 'a1_in1k'"),
        ("hf_hub:timm/resnet18", "unknown timm network"),
        ("", "unknown timm network"),
    ],
)
def test_unknown_names(name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        create_backbone(name)


def test_pretrained_without_network_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(*args: object, **options: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(timm, "create_model", no_network)
    with pytest.raises(InputError, match=r"'resnet18' are not available \(no route to host\)(.|\n)*timm:resnet18:FILE"):
        create_backbone("resnet18", pretrained=True)


def test_boxes_for_another_number_of_images() -> None:
    with pytest.raises(ValueError, match="2 images, but boxes for 1"):
        create_backbone("test_resnet").pool(torch.randn(2, 3, 64, 64), [torch.zeros(1, 4)])


def test_backbone_is_a_module_with_the_network_inside() -> None:
    backbone = create_backbone("test_resnet.r160_in1k")
    assert isinstance(backbone, Backbone)
    images = torch.randn(2, 3, 64, 64)
    assert all(
        torch.equal(one, other) for one, other in zip(backbone.eval()(images), backbone.maps(images), strict=True)
    )
    assert backbone.input_size == 160
    assert {name.split(".")[0] for name, _ in backbone.named_parameters()} == {"net"}
