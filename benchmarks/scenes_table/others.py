"""Rows by other people's code: SimCLR and DenseCL from lightly's parts, with the backbone, images, optimiser, schedule
and length of the other rows.

    python -m benchmarks.scenes_table.others simclr|densecl [options of `d3ssl pretrain`] [--resume]

Views, heads and losses are lightly's; sizes of the heads, the temperature and the teacher's momentum are those of the
recipe. The views are made for small images: SimCLR's colours change half as much, as lightly advises, its crops hold a
fifth of the image or more, as DenseCL's do, and the blur, made for 224 px, is scaled to the views' side. The folder in
--out is one that `d3ssl evaluate` and `d3ssl diagnose` read as a run.

Sources: SimCLR, arXiv 2002.05709; DenseCL, arXiv 2011.09157; lightly (MIT licence). Its example of DenseCL makes a
momentum encoder, but takes the keys from the trained one, and its queue of the dense loss holds matched cells; here the
keys come from the momentum encoder and the queue holds a mean of the cells' embeddings for each image, as in the paper.
"""

from __future__ import annotations

import contextlib
import random
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from lightly.loss import NTXentLoss
from lightly.models.modules import DenseCLProjectionHead, SimCLRProjectionHead
from lightly.models.modules.memory_bank import MemoryBankModule
from lightly.models.utils import select_most_similar
from lightly.transforms.densecl_transform import DenseCLTransform
from lightly.transforms.simclr_transform import SimCLRTransform
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize
from torch.utils.data import DataLoader, Dataset

from d3ssl.console import progress, say
from d3ssl.data.image_set import ImageSet
from d3ssl.data.images import read_canvas
from d3ssl.data.sources import open_images
from d3ssl.files import make_folder, write_text
from d3ssl.models.artifact import save_backbone
from d3ssl.models.backbone import Backbone
from d3ssl.models.ema import make_teacher, momentum_at, update_teacher
from d3ssl.options import build, make_parser, parse
from d3ssl.seeds import derive_seed
from d3ssl.train import RunConfig, checkpoint
from d3ssl.train.collapse import embedding_spread
from d3ssl.train.config import as_dict, num_steps
from d3ssl.train.loader import EpochOrder
from d3ssl.train.log import RunLog
from d3ssl.train.loop import make_backbone
from d3ssl.train.optimizer import make_optimizer, scale_rates
from d3ssl.train.process import StopSignal, choose_device
from d3ssl.train.recipe import add_run
from d3ssl.train.schedule import lr_at

QUEUE = 1024
"""Keys that DenseCL keeps of each kind: fewer than the images, or most queries would be repelled by keys of their own
image (the paper has 65,536, of a million images)."""

DENSE_CELLS = 4
"""A side, at least, of the map whose cells DenseCL compares: the last that has them (7 in the paper, at 224 px)."""


class SimClr(nn.Module):
    """The two views of an image attract, all other views of the batch repel."""

    @staticmethod
    def transform(size: int, **options: Any) -> Any:
        """PIL image → two views."""
        return SimCLRTransform(size, cj_strength=0.5, min_scale=0.2, **options)

    def __init__(self, backbone: Backbone, config: RunConfig) -> None:
        super().__init__()
        self.backbone = backbone
        host = config.host
        self.head = SimCLRProjectionHead(backbone.num_features, host.projector_hidden, host.projector_out)
        self.loss = NTXentLoss(temperature=config.host.temperature)

    def forward(self, one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
        """The loss, and the embeddings of the first views."""
        rows = [self.head(self.backbone.maps(images)[-1].mean((2, 3))) for images in (one, other)]
        return self.loss(*rows), rows[0].detach()

    def update(self, momentum: float) -> None:
        """Nothing: it has no teacher."""


class DenseCl(nn.Module):
    """Contrast of whole views and, with half the weight, of cells of their maps with the most similar cells of the
    other view; keys from a momentum encoder and from queues (DenseCL, equations 1 to 3)."""

    transform = staticmethod(DenseCLTransform)

    def __init__(self, backbone: Backbone, config: RunConfig) -> None:
        super().__init__()
        self.student = _DenseNetwork(backbone, config)
        self.teacher = make_teacher(self.student)
        size, self.temperature = (QUEUE, config.host.projector_out), config.host.temperature
        self.loss = NTXentLoss(temperature=self.temperature, memory_bank_size=size)
        self.dense_queue = MemoryBankModule(size)

    @property
    def backbone(self) -> Backbone:
        """The one to keep."""
        return self.student.backbone

    def get_extra_state(self) -> dict[str, Tensor]:
        """The queues, which lightly leaves out of the state dict."""
        banks = {"queue": self.loss.memory_bank, "dense_queue": self.dense_queue}
        return {f"{name}.{part}": getattr(bank, part) for name, bank in banks.items() for part in ("bank", "bank_ptr")}

    def set_extra_state(self, state: dict[str, Tensor]) -> None:
        """Fill the queues."""
        for name, own in self.get_extra_state().items():
            own.copy_(state[name])

    def forward(self, one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
        """The loss, and the student's embeddings of the first views."""
        query, query_cells, dense_query = self.student(one)
        with torch.no_grad():
            key, key_cells, dense_key = self.teacher(other)
            matched = select_most_similar(query_cells, key_cells, dense_key)
            _, negatives = self.dense_queue(normalize(dense_key.mean(1), dim=1), update=True)
        dense = dense_contrast(dense_query, matched, negatives, self.temperature)
        return 0.5 * self.loss(query, key) + 0.5 * dense, query.detach()

    def update(self, momentum: float) -> None:
        """teacher ← momentum · teacher + (1 − momentum) · student."""
        update_teacher(self.teacher, self.student, momentum)


def dense_contrast(query: Tensor, key: Tensor, negatives: Tensor, temperature: float) -> Tensor:
    """Cross-entropy of each cell's key among keys of other images (DenseCL, equation 2).

    Args:
        query, key: embeddings (B, N, E) of cells and of the cells that they are matched with.
        negatives: embeddings of norm 1 (E, Q).
        temperature: of the cosines.
    """
    query, key = normalize(query, dim=2).flatten(0, 1), normalize(key, dim=2).flatten(0, 1)
    logits = torch.cat([(query * key).sum(1, keepdim=True), query @ negatives], dim=1) / temperature
    return cross_entropy(logits, torch.zeros(len(logits), dtype=torch.long, device=logits.device))


class _DenseNetwork(nn.Module):
    def __init__(self, backbone: Backbone, config: RunConfig) -> None:
        super().__init__()
        sides = [config.views.size // stride for stride in backbone.strides]
        self.dense_map = max(place for place, side in enumerate(sides) if side >= DENSE_CELLS)
        sizes = config.host.projector_hidden, config.host.projector_out
        self.backbone = backbone
        self.head = DenseCLProjectionHead(backbone.channels[-1], *sizes)
        self.dense_head = DenseCLProjectionHead(backbone.channels[self.dense_map], *sizes)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Embedding (B, E), cells of a map (B, N, C), and their embeddings (B, N, E)."""
        maps = self.backbone.maps(images)
        cells = maps[self.dense_map].flatten(2).transpose(1, 2)
        batch, number, _ = cells.shape
        dense = self.dense_head(cells.flatten(0, 1)).unflatten(0, (batch, number))
        return self.head(maps[-1].mean((2, 3))), cells, dense


METHODS = {"simclr": SimClr, "densecl": DenseCl}


class TwoViews(Dataset):
    """Image number g of the training → two views, which depend on the seed and on g only."""

    def __init__(self, images: ImageSet, config: RunConfig, transform: Any) -> None:
        self.images, self.config, self.transform = images, config, transform
        self.place = EpochOrder(config.train.seed, len(images))

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
        canvas, _ = read_canvas(self.images.paths[self.place(number)], self.config.canvas.size)
        # Lightly's transforms draw from the three global generators.
        drawn = derive_seed(self.config.train.seed, "views", number)
        random.seed(drawn)
        np.random.seed(drawn % 2**32)  # noqa: NPY002
        torch.manual_seed(drawn)
        one, other = self.transform(Image.fromarray(canvas))
        return one, other


class Training:
    """A row's training, which goes on from its checkpoint."""

    def __init__(self, name: str, config: RunConfig) -> None:
        self.name, self.config, self.run = name, config, make_folder(Path(config.out))
        self.images, self.device = open_images(config.data), choose_device(config.runtime.device)
        self.data_digest = self.images.digest()
        self.steps, self.step = num_steps(config.train, len(self.images)), 0
        torch.manual_seed(derive_seed(config.train.seed, "weights") % 2**31)
        backbone = make_backbone(config)
        for unused in backbone.unused_parameters:
            backbone.net.get_parameter(unused).requires_grad_(False)
        backbone.region_path, backbone.roi_size = config.host.region_path, config.host.roi_size  # read as other rows
        self.method = METHODS[name](backbone, config).to(self.device).train()
        self.optimizer = make_optimizer(self.method, config.optimizer, config.train.batch_size)

    def restore(self) -> None:
        """Continue from RUN/checkpoint.pt, if there is one."""
        if checkpoint.exists(self.run):
            state = checkpoint.load(self.run, self.config, self.data_digest)
            self.method.load_state_dict(state["method"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.step = state["step"]

    def save(self) -> None:
        """Write RUN/checkpoint.pt."""
        own = {"method": self.method.state_dict(), "optimizer": self.optimizer.state_dict(), "step": self.step}
        checkpoint.save(self.run, own | {"config": as_dict(self.config), "data_digest": self.data_digest})

    def finish(self) -> None:
        """Train to the end and write a folder that reads as a run.

        Raises:
            SystemExit: stopped by a signal, after a checkpoint was saved.
        """
        runtime, size = self.config.runtime, self.config.train.batch_size
        write_text(self.run / "config.yaml", yaml.safe_dump(as_dict(self.config), sort_keys=False))
        log, begin, since = RunLog(self.run, self.step, runtime.tensorboard), time.perf_counter(), self.step
        with contextlib.closing(log), StopSignal() as stop, progress("training", self.steps, self.step) as ticker:
            for one, other in self._loader():
                loss, embeddings = self._train_step(one.to(self.device), other.to(self.device))
                ticker.advance(1, f"loss {loss:.3f}")
                last = self.step == self.steps
                if self.step % runtime.log_every == 0 or last:
                    rate = (self.step - since) * size / (time.perf_counter() - begin)
                    figures = {"loss": loss, "embedding_std": embedding_spread(embeddings), "images_per_s": rate}
                    log.write(self.step, figures)
                    begin, since = time.perf_counter(), self.step
                if stop.received is not None or self.step % runtime.save_every == 0 or last:
                    self.save()
                if stop.received is not None and not last:
                    say(f"stopped at step {self.step} of {self.steps}; continue with --resume")
                    sys.exit(128 + stop.received)
        manifest = {"input_size": self.config.views.size, "steps": self.steps, "method": self.name}
        save_backbone(self.run, self.method.backbone.eval(), manifest)

    def _loader(self) -> DataLoader:
        backbone, size = self.method.backbone, self.config.train.batch_size
        statistics = {"mean": list(backbone.mean), "std": list(backbone.std)}
        side = self.config.views.size
        sigmas = 0.1 * side / 224, 2 * side / 224
        transform = self.method.transform(side, normalize=statistics, sigmas=sigmas)
        order = range(self.step * size, self.steps * size)
        workers = self.config.runtime.workers or 0
        return DataLoader(TwoViews(self.images, self.config, transform), size, sampler=order, num_workers=workers)

    def _train_step(self, one: Tensor, other: Tensor) -> tuple[float, Tensor]:
        """The loss, and embeddings to watch."""
        scale_rates(self.optimizer, lr_at(self.step, self.steps, self.config.schedule))
        loss, embeddings = self.method(one, other)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        self.method.update(momentum_at(self.step / self.steps, self.config.host.momentum))
        self.step += 1
        return loss.item(), embeddings


def main(argv: Sequence[str]) -> None:
    if not argv or argv[0] not in METHODS:
        sys.exit(f"usage: python -m benchmarks.scenes_table.others {'|'.join(METHODS)} [options of `d3ssl pretrain`]")
    parser = make_parser(f"pretrain ({argv[0]})", "Train a row of the table by lightly's parts.", ())
    parser.add_argument("--resume", action="store_true")
    words = add_run(parser, argv[1:])
    options = parse(parser, words)
    training = Training(argv[0], build(RunConfig, options))
    if options.resume:
        training.restore()
    training.finish()


if __name__ == "__main__":
    main(sys.argv[1:])
