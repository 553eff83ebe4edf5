"""Modules as functions, names with nothing to do, rearrange, and the signatures of torch.func."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy
import pytest

import gpunet
from gpunet import func, nn
from gpunet.errors import ArgumentError, DtypeError, ShapeError, StackError


def test_signatures_are_those_of_torch(torch: Any) -> None:
    from torch import func as theirs

    assert {*func.__all__} == {*theirs.__all__}
    for name in theirs.__all__:
        expected = inspect.signature(getattr(theirs, name)).parameters.values()
        found = inspect.signature(getattr(func, name)).parameters.values()
        assert [(p.name, p.kind, p.default) for p in found] == [(p.name, p.kind, p.default) for p in expected], name
    assert gpunet.vmap is func.vmap


def test_scripts_import_it_under_pytorchs_names() -> None:
    code = """
from gpunet.interop.torch_modules import torch_names
with torch_names():
    import torch
    import torch.func
    from torch.func import grad, vmap
    assert vmap is torch.vmap is torch.func.vmap
    assert grad(lambda x: (x ** 2).sum())(torch.ones(2)).tolist() == [2.0, 2.0]
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(gpunet.__file__).parents[1])


def test_stack_module_state(device: str) -> None:
    nets = [nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)) for _ in range(4)]
    nets[0][0].weight.requires_grad_(True)
    parameters, buffers = func.stack_module_state(nets)
    assert [*parameters] == [name for name, _ in nets[0].named_parameters()]
    assert [*buffers] == [name for name, _ in nets[0].named_buffers()]
    for name, stacked in parameters.items():
        assert stacked.requires_grad and stacked.is_leaf
        for net, part in zip(nets, stacked):
            assert (part == net.get_parameter(name)).all()
    x = gpunet.randn(5, 3)
    for net in nets:
        net.eval()

    def call(p: Any, b: Any, x: Any) -> Any:
        return func.functional_call(nets[0], (p, b), (x,))

    found = func.vmap(call, in_dims=(0, 0, None))(parameters, buffers, x)
    assert (found == gpunet.stack([net(x) for net in nets])).all()
    found.sum().backward()
    assert parameters["0.weight"].grad is not None and nets[0][0].weight.grad is None


def test_modules_that_cannot_be_stacked() -> None:
    frozen = nn.Linear(3, 2)
    frozen.bias.requires_grad_(False)
    for models, message in [
        ([nn.Linear(3, 2), nn.ReLU()], r"the class of model 1 is ReLU, that of model 0 Linear"),
        ([nn.Linear(3, 2), nn.Linear(3, 2).eval()], r"the mode of model 1 is evaluation, that of model 0 training"),
        ([nn.Linear(3, 2), nn.Linear(4, 2)], r"'weight' of model 1 has .* \(\(2, 4\), 'float32', 'cpu', True\)"),
        ([nn.Linear(3, 2), frozen], r"'bias' of model 1 has .* False"),
        ([nn.Linear(3, 2), nn.Linear(3, 2, bias=False)], r"'bias' is in one of the models 0 and 1 alone"),
    ]:
        with pytest.raises(StackError, match=f"stack_module_state: {message}"):
            func.stack_module_state(models)
    with pytest.raises(ArgumentError, match="stack_module_state: models is empty"):
        func.stack_module_state([])


def test_batch_norm_without_running_statistics(torch: Any) -> None:
    x = numpy.random.default_rng(0).normal(size=(4, 2, 3, 3))
    found = []
    for library in (gpunet, torch):
        net = library.nn.Sequential(library.nn.BatchNorm2d(2), library.nn.Sequential(library.nn.BatchNorm2d(2)))
        assert library.func.replace_all_batch_norm_modules_(net) is net
        assert [*net.state_dict()] == ["0.weight", "0.bias", "1.0.weight", "1.0.bias"]
        found.append(net.double().eval()(library.tensor(x)).detach().numpy())
    numpy.testing.assert_allclose(found[0], found[1], rtol=1e-9, atol=1e-12)
    with pytest.raises(DtypeError, match="replace_all_batch_norm_modules_: root has type int; expected a module"):
        func.replace_all_batch_norm_modules_(3)  # type: ignore[arg-type]


def test_functionalize_and_unwrap() -> None:
    x = gpunet.ones(2)
    assert func.functionalize(lambda x: x.add_(1))(x).tolist() == x.tolist() == [2.0, 2.0]
    assert func.debug_unwrap(x) is x
    with pytest.raises(ArgumentError, match=r"functionalize: remove='views'; expected 'mutations' or 'mutations_and_views'"):
        func.functionalize(lambda x: x, remove="views")
    with pytest.raises(DtypeError, match="debug_unwrap: tensor has type int"):
        func.debug_unwrap(3)  # type: ignore[arg-type]


# ---- rearrange ----------------------------------------------------------------------------------------------------------

PATTERNS: list[tuple[tuple[int, ...], str, dict[str, int]]] = [
    ((3, 2), "a b -> b a", {}), ((3, 2), "a b->(a b)", {}), ((3, 2), "a b -> a 1 b ()", {}), ((6, 2), "(a b) c -> c a b", {"a": 3}),
    ((2, 3, 4, 5), "a b ... -> a (...) b", {}), ((2, 3, 4, 5), "a ... b -> (a b) ...", {}), ((2, 3, 4), "... -> ...", {}),
    ((2, 3, 4, 5), "... b -> b ...", {}), ((2, 6, 4, 1), "b (h1 h) w 1 -> (b h1) w h", {"h1": 2}), ((4,), "... -> 1 ... 1", {}),
    ((2, 6, 4), "b (h h1) (w w1) -> b h w (h1 w1)", {"h1": 3, "w1": 2}), ((2, 3, 4), "... (a b) -> (a ...) b", {"a": 2}),
    ((2, 3), "a1 b_c -> b_c a1", {}), ((2, 0, 4), "a b c -> (b c) a", {}),
]  # fmt: skip


@pytest.mark.parametrize(("shape", "pattern", "sizes"), PATTERNS, ids=[pattern for _, pattern, _ in PATTERNS])
def test_rearrange_equals_pytorch(shape: Any, pattern: str, sizes: Any, device: str, torch: Any) -> None:
    x = numpy.random.default_rng(0).normal(size=shape)
    found = func.rearrange(gpunet.tensor(x), pattern, **sizes)
    expected = torch.func.rearrange(torch.tensor(x), pattern, **sizes)
    numpy.testing.assert_array_equal(found.cpu().numpy(), expected.numpy(), strict=True)


def test_rearrange_stacks_and_has_gradients() -> None:
    x = gpunet.randn(2, 3, requires_grad=True)
    found = func.rearrange([x, x * 2], "n a b -> b (n a)")
    assert found.shape == (3, 4)
    (found * gpunet.arange(12.0).reshape(3, 4)).sum().backward()
    assert x.grad is not None and x.grad[0].tolist() == [4.0, 16.0, 28.0]  # 0 + 2 * 2 and so on
    assert func.rearrange(gpunet.tensor(1.0), "-> 1").shape == (1,)


@pytest.mark.parametrize(
    ("pattern", "sizes", "error", "message"),
    [
        ("a b", {}, ArgumentError, r"pattern 'a b'; expected one '->' between two lists of names"),
        ("a -> b -> c", {}, ArgumentError, "expected one '->'"),
        ("a a -> a", {}, ArgumentError, r"'a' is twice on one side of pattern 'a a -> a'"),
        ("a b -> a", {}, ArgumentError, r"'b' is on one side of pattern 'a b -> a' only"),
        ("a b -> a b 2", {}, ArgumentError, r"pattern 'a b -> a b 2' has '2'; expected names"),
        ("a_ b -> b a_", {}, ArgumentError, r"has 'a_'; expected names"),
        ("a (b -> a b", {}, ArgumentError, "the parentheses in pattern .* do not match"),
        ("a) b -> a b", {}, ArgumentError, "the parentheses in pattern .* do not match"),
        ("((a) b) -> a b", {}, ArgumentError, "do not match, or are nested"),
        ("(...) b -> ... b", {}, ArgumentError, r"'\.\.\.' is in parentheses on the left of pattern"),
        ("a b c -> a b c", {}, ShapeError, r"for a tensor of shape \(6, 2\); expected 3 dimensions"),
        ("a -> a", {}, ShapeError, r"for a tensor of shape \(6, 2\); expected 1 dimensions"),
        ("(a c) b -> a b c", {"a": 4}, ShapeError, r"a dimension of size 6 cannot be \(a c\) in pattern .* with sizes {'a': 4}"),
        ("(a c) b -> a b c", {}, ShapeError, r"the sizes of \['a', 'c'\] in pattern .* are unknown"),
        ("a b -> b a", {"a": 5}, ShapeError, r"a dimension of size 6 cannot be \(a\)"),
        ("a b -> b a", {"q": 5}, ArgumentError, r"q=5, but pattern 'a b -> b a' has no 'q'"),
        ("a b -> b a", {"a": 0}, ArgumentError, r"a=0; expected a size of 1 or more"),
        ("a 1 -> a", {}, ShapeError, r"a dimension of size 2 cannot be \(1\)"),
    ],
)
def test_wrong_patterns(pattern: str, sizes: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"rearrange: .*{message}"):
        func.rearrange(gpunet.ones(6, 2), pattern, **sizes)
