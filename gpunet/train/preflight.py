"""Checks of a training on its first batch, before the first step."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from gpunet import nn
from gpunet.autograd import Tensor, no_grad
from gpunet.backend.dtypes import is_floating
from gpunet.data.randomness import preserved_globals
from gpunet.errors import ArgumentError, ShapeError
from gpunet.launch.tape import warn_user
from gpunet.nn import functional
from gpunet.optim import Optimizer
from gpunet.train.figures import Figure
from gpunet.train.modes import evaluating

_SOFTMAX_INSIDE = (nn.CrossEntropyLoss, nn.LinearCrossEntropyLoss)
_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


def check_optimizer(optimizer: Optimizer, modules: Iterable[nn.Module], function: str = "fit") -> None:
    """Check that an optimizer moves a parameter of the modules.

    Raises:
        ArgumentError: they have parameters, but the optimizer has others.
    """
    trained = {id(p) for module in modules for p in module.parameters()}
    if trained and not any(id(p) in trained for group in optimizer.param_groups for p in group["params"]):
        raise ArgumentError(
            f"{function}: the {type(optimizer).__name__} has no parameter of the network, so it would train nothing; make it "
            "with the parameters() of the network that is passed"
        )


def check_mode(model: nn.Module, function: str = "fit") -> None:
    """Warn if a model was left in evaluation mode, and end it; modules that are frozen in it one by one stay."""
    if not model.training:
        warn_user(
            f"{function}: the network is in evaluation mode, in which dropout and batch norm do not train; it is put into training "
            "mode. Call model.train() before, and freeze single modules with module.eval() behind it"
        )
        model.train()


def check_first_batch(model: nn.Module, loss: Any, batch: list[Any], loader: Any, figures: Iterable[Figure]) -> None:
    """Run the model on the first batch in evaluation mode, without effects, and look at its output.

    Args:
        batch: the inputs, and then the target.
        loader: where the batches come from.
        figures: metrics of the training data.

    Raises:
        ShapeError: the output would be broadcast against the target.
        ArgumentError: a batch norm would get a single value per channel, or the loss or a metric is not one number.
    """
    *inputs, target = batch
    output, shapes = _probe(model, inputs)
    _check_last_batch(shapes, loader)
    _check_sigmoid(model, loss)
    if isinstance(output, Tensor) and isinstance(target, Tensor):
        _check_shapes(output, target)
        _check_logits(loss, output)
    with preserved_globals(), evaluating(*([loss] if isinstance(loss, nn.Module) else [])), no_grad():
        _check_loss(loss, output, target)
        for figure in figures:
            figure.check(output, target)


def _probe(model: nn.Module, inputs: list[Any]) -> tuple[Any, list[tuple[int, ...]]]:
    """The output of the model, and the shapes of the inputs of its batch norms in training mode."""
    shapes: list[tuple[int, ...]] = []
    norms = [module for module in model.modules() if isinstance(module, _BATCH_NORMS) and module.training]
    hooks = [norm.register_forward_pre_hook(lambda _, given: shapes.append(tuple(given[0].shape))) for norm in norms]
    try:
        with preserved_globals(), evaluating(model), no_grad():
            return model(*inputs), shapes
    finally:
        for hook in hooks:
            hook.remove()


def _check_last_batch(shapes: list[tuple[int, ...]], loader: Any) -> None:
    size: int | None = getattr(loader, "batch_size", None)
    sampler: Any = getattr(loader, "sampler", None)
    if size is None or size == 1 or loader.drop_last or not hasattr(sampler, "__len__"):
        return
    if len(sampler) % size == 1 and any(math.prod(shape[2:]) == 1 for shape in shapes):
        raise ArgumentError(
            f"fit: {len(sampler)} samples in batches of {size} leave a last batch of one, of which batch norm cannot compute a "
            f"variance; pass DataLoader(drop_last=True), or another batch_size"
        )


def _check_shapes(output: Tensor, target: Tensor) -> None:
    if not is_floating(target.dtype) or output.shape == target.shape:
        return
    squeezed = [tuple(n for n in t.shape if n != 1) for t in (output, target)]
    if output.ndim != target.ndim and squeezed[0] == squeezed[1]:
        way_out = "output.squeeze(1)" if output.ndim > target.ndim else "target.squeeze(1)"
        raise ShapeError(
            f"fit: the network returns {tuple(output.shape)}, the targets are {tuple(target.shape)}; the loss would compare each "
            f"row with each other row. Make the shapes equal: targets.reshape{tuple(output.shape)}, or {way_out}"
        )


def _check_loss(loss: Any, output: Any, target: Any) -> None:
    try:
        value = loss(output, target)
    except Exception:  # such as for outputs that differ in evaluation mode; training raises it, if it occurs there
        return
    if not isinstance(value, Tensor):
        raise ArgumentError(f"fit: the loss returns a {type(value).__name__}, which has no gradient; expected a Tensor")
    if value.ndim:
        raise ArgumentError(f"fit: the loss returns the shape {tuple(value.shape)}; expected one number, such as its mean()")


def _check_logits(loss: Any, output: Tensor) -> None:
    takes_softmax = isinstance(loss, _SOFTMAX_INSIDE) or loss is functional.cross_entropy
    if takes_softmax and output.ndim > 1 and output.shape[1] > 1 and is_floating(output.dtype):
        is_distribution = (output >= 0.0).all() & ((output.float().sum(1) - 1.0).abs() < 1e-3).all()
        if is_distribution.item():
            warn_user(
                "fit: the network returns probabilities, as of a softmax, but cross-entropy expects logits and applies the softmax "
                "itself; remove the softmax at the end of the network"
            )


def _check_sigmoid(model: nn.Module, loss: Any) -> None:
    takes_sigmoid = isinstance(loss, nn.BCEWithLogitsLoss) or loss is functional.binary_cross_entropy_with_logits
    if takes_sigmoid and isinstance(model, nn.Sequential) and isinstance(model[-1], nn.Sigmoid):
        warn_user("fit: the network ends in a sigmoid, but BCEWithLogitsLoss applies it itself; remove it, or use BCELoss")
