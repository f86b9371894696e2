"""Batch norm whose statistics are those of the batches of all processes together, on GPUs and on CPUs."""

from __future__ import annotations

from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from timm.layers.norm_act import BatchNormAct2d, SyncBatchNormAct
from torch import Tensor, nn
from torch.nn.modules._functions import SyncBatchNorm as GpuSyncBatchNorm
from torch.nn.modules.batchnorm import _BatchNorm

from d3ssl.distributed import all_reduce_sum, is_active, world_size
from d3ssl.errors import InputError

Network = TypeVar("Network", bound=nn.Module)


class SynchronisedBatchNorm(_BatchNorm):
    """Batch norm over all processes, on GPUs (NCCL) and on CPUs (gloo).

    Not a subclass of ``nn.SyncBatchNorm``: that one runs on GPUs only, and DDP refuses it on CPUs.

    Input (N, C, ...) floating point; numbers of rows may differ between processes and may be 0 in some. Output,
    gradients and running statistics are those of batch norm on the concatenated batch. As usual under DDP, each
    process gets the gradient of weight and bias from its own rows; summing over processes is DDP's work.

    Raises:
        ValueError: in training mode, fewer than two values a channel over all processes.
    """

    def forward(self, input: Tensor) -> Tensor:
        use_batch = self.training or self.running_mean is None
        if not (use_batch and is_active() and world_size() > 1):
            return self._local(input, use_batch)
        if input.is_cuda:
            return _normalise_on_gpu(self, input)
        return _normalise(self, input)  # pyright: ignore[reportCallIssue]  # the decorator hides the signature

    def _local(self, input: Tensor, use_batch: bool) -> Tensor:
        track = self.training and self.track_running_stats and self.running_mean is not None
        factor = _count_batch(self) if track else 0.0
        mean, var = (self.running_mean, self.running_var) if track or not use_batch else (None, None)
        return F.batch_norm(input, mean, var, self.weight, self.bias, use_batch, factor, self.eps)


class SynchronisedBatchNormAct(SynchronisedBatchNorm):
    """Synchronised twin of timm's batch norm with activation (``BatchNormAct2d``)."""

    drop: nn.Module
    act: nn.Module

    def forward(self, input: Tensor) -> Tensor:
        return self.act(self.drop(SynchronisedBatchNorm.forward(self, input)))


def _count_batch(norm: _BatchNorm) -> float:
    """Count this batch; returns the weight of its statistics in the running ones (momentum None: plain average)."""
    if norm.num_batches_tracked is not None:
        norm.num_batches_tracked.add_(1)
    if norm.momentum is not None:
        return norm.momentum
    return 1.0 / float(norm.num_batches_tracked)  # type: ignore[arg-type]


def _normalise_on_gpu(norm: _BatchNorm, input: Tensor) -> Tensor:
    """PyTorch's own kernels and collectives for GPUs.

    The statistics are sent in float32 by processes with rows, in the input's dtype by those without: so an input
    without rows goes as float32, or the messages would differ under autocast.
    """
    input = input if input.numel() else input.float()
    track = norm.training and norm.track_running_stats and norm.running_mean is not None
    factor = _count_batch(norm) if track else 0.0
    mean, var = (norm.running_mean, norm.running_var) if track else (None, None)
    group = torch.distributed.group.WORLD
    return GpuSyncBatchNorm.apply(  # type: ignore[return-value]
        input, norm.weight, norm.bias, mean, var, norm.eps, factor, group, world_size()
    )


@torch.compiler.disable
def _normalise(norm: _BatchNorm, input: Tensor) -> Tensor:
    channels = input.shape[1]
    weight = norm.weight if norm.weight is not None else input.new_ones(channels)
    bias = norm.bias if norm.bias is not None else input.new_zeros(channels)
    output, mean, var, count = _Normalise.apply(input, weight, bias, norm.eps)  # type: ignore[misc]
    if norm.training and norm.track_running_stats and norm.running_mean is not None and norm.running_var is not None:
        factor = _count_batch(norm)
        with torch.no_grad():
            norm.running_mean.lerp_(mean.to(norm.running_mean.dtype), factor)
            norm.running_var.lerp_((var * (count / (count - 1.0))).to(norm.running_var.dtype), factor)
    return output


class _Normalise(torch.autograd.Function):
    """y = (x − μ)/√(σ² + ε)·w + b with μ and σ² over all processes, one collective forward and one backward.

    With x̂ = (y − b)/w, s = w/√(σ² + ε), g = ∂L/∂y and M values a channel over all processes::

        ∂L/∂x = s·[g − (Σ g)/M − x̂·(Σ g·x̂)/M]     sums over all processes

    The first term is the gradient of batch norm with fixed statistics, whose weight and bias gradients are the local
    sums; so PyTorch's fast kernels do the work. Sums cross the processes in float64: the variance as mean of squares
    minus square of the mean then loses nothing that float32 could hold.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Float[Tensor, "N C *_"], weight: Float[Tensor, "C"], bias: Float[Tensor, "C"], eps: float
    ) -> tuple[Tensor, Tensor, Tensor, float]:
        channels = x.shape[1]
        rows = x.numel() // channels
        sums = torch.zeros(2 * channels + 1, dtype=torch.float64, device=x.device)
        if rows:
            mean, var = (part.double() for part in torch.batch_norm_update_stats(x, None, None, 0.0))
            sums[:channels], sums[channels:-1], sums[-1] = mean * rows, (var + mean * mean) * rows, rows
        sums = all_reduce_sum(sums)
        count = float(sums[-1])
        if count < 2:
            raise ValueError(f"batch norm needs two values a channel or more over all processes, got {count:.0f}")
        mean = sums[:channels] / count
        var = (sums[channels:-1] / count - mean * mean).clamp_(min=0.0)
        mean, var = mean.to(weight.dtype), var.to(weight.dtype)
        ctx.save_for_backward(x, weight, mean, var)
        ctx.eps, ctx.count = eps, count
        ctx.mark_non_differentiable(mean, var)
        output = F.batch_norm(x, mean, var, weight, bias, False, 0.0, eps) if rows else torch.empty_like(x)
        return output, mean, var, count

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_: Any) -> tuple[Tensor, Tensor, Tensor, None]:
        x, weight, mean, var = ctx.saved_tensors
        if x.numel():
            grad_x, grad_weight, grad_bias = torch.ops.aten.native_batch_norm_backward(
                grad, x, weight, mean, var, None, None, False, ctx.eps, [True, True, True]
            )
        else:
            grad_x, grad_weight, grad_bias = torch.empty_like(x), torch.zeros_like(weight), torch.zeros_like(weight)
        sums = all_reduce_sum(torch.stack([grad_weight, grad_bias]).double()) / ctx.count
        inverse = (var.double() + ctx.eps).rsqrt()
        slope = -weight.double() * inverse * inverse * sums[0]
        offset = -weight.double() * inverse * sums[1]
        shape = (1, -1, *(1,) * (x.ndim - 2))
        mean, slope, offset = (part.to(x.dtype).view(shape) for part in (mean, slope, offset))
        grad_x.addcmul_(x - mean, slope).add_(offset)
        return grad_x, grad_weight, grad_bias, None


def convert_sync_batch_norm(module: Network) -> Network:
    """Replace every batch norm in ``module`` by a synchronised one that shares its parameters and buffers, in place.

    Names in the state dict stay as they are. Returns ``module`` (or its replacement, if it is a batch norm itself).

    Raises:
        InputError: a kind of batch norm that cannot be synchronised.
    """
    return _convert(module, {})  # type: ignore[return-value]


def _convert(module: nn.Module, done: dict[nn.Module, nn.Module]) -> nn.Module:
    if module not in done:
        done[module] = _twin(module) if isinstance(module, _BatchNorm) else module
        for name, child in module.named_children():
            done[module].add_module(name, _convert(child, done))
    return done[module]


def _twin(norm: _BatchNorm) -> nn.Module:
    if isinstance(norm, SynchronisedBatchNorm):
        return norm
    plain = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
    with_activation = (BatchNormAct2d, SyncBatchNormAct)
    if type(norm) not in (*plain, *with_activation):
        remedy = "set --train.sync_batch_norm false, or choose another backbone."
        raise InputError(f"batch norm of the kind {type(norm).__name__} cannot be synchronised", remedy=remedy)
    kind = SynchronisedBatchNormAct if type(norm) in with_activation else SynchronisedBatchNorm
    twin = kind(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
    for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
        setattr(twin, name, getattr(norm, name))
    return twin.train(norm.training)
