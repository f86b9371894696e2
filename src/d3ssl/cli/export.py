"""``d3ssl export``."""

from __future__ import annotations

from collections.abc import Sequence

from d3ssl.export.run import export_backbone, tell
from d3ssl.export.targets import TARGETS
from d3ssl.options import make_parser, parse

_EXAMPLES = (
    "d3ssl export run/ --to timm --out backbone.safetensors",
    "d3ssl export run/ --to torchvision-detector --out body.pth",
    "d3ssl export run/ --to hf --out folder/ --licence apache-2.0 --push ORG/NAME",
    "d3ssl export timm:convnext_tiny:pretrained --to onnx --out convnext.onnx",
)


def run(argv: Sequence[str]) -> None:
    targets = "\n".join(f"  {name:<21} {target.what}" for name, target in TARGETS.items())
    parser = make_parser(
        "export",
        "Write a backbone in another tool's format. Every export is loaded in that tool, and its maps are compared\n"
        f"with the backbone's; if they differ, nothing is left. docs/export.md shows how to load each.\n\n{targets}",
        _EXAMPLES,
        usage="RUN --to TARGET --out PATH [options]",
    )
    parser.add_argument("backbone", metavar="RUN", type=str, help="a run, an exported file, timm:NAME, hf:PATH, …")
    parser.add_argument("--to", type=str, required=True, help=f"the target: {', '.join(TARGETS)}")
    parser.add_argument("--out", type=str, required=True, help="file or folder to make; it must not be there yet")
    parser.add_argument("--channels", type=int, default=3, help="of the images, for timm: and hf:; a run knows its own")
    parser.add_argument("--licence", type=str | None, default=None, help="of the weights, for the model card of hf")
    parser.add_argument("--push", type=str | None, default=None, help="ORG/NAME on Hugging Face's hub, for target hf")
    options = parse(parser, argv)
    found = export_backbone(
        options.backbone,
        options.to,
        options.out,
        in_channels=options.channels,
        licence=options.licence,
        push_to=options.push,
    )
    tell(found)
