"""Every function and method takes its arguments as PyTorch's does: by position, by keyword, by NumPy's names, left out."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

import gpunet
from tests.torch_calls.differences import find_difference
from tests.torch_calls.judge import BOTH_REFUSE, CRASH, EQUAL, judge
from tests.torch_calls.outcome import quietly
from tests.torch_calls.signatures import spellings
from tests.torch_calls.targets import find_targets

#: Drawn arguments do not fit: they need a tensor with a graph, a function, data of any kind, lists of weights, lengths that fit
#: targets, pivots, or, for a method without an overload of PyTorch's, a matrix of float32 or float64.
UNDRAWN = {
    "F.ctc_loss", "F.grouped_mm", "F.multi_head_attention_forward", "Tensor.apply_", "Tensor.as_strided_scatter",
    "Tensor.as_subclass", "Tensor.backward", "Tensor.dim_order", "Tensor.istft", "Tensor.lu", "Tensor.lu_solve",
    "Tensor.map2_", "Tensor.map_", "Tensor.module_load", "Tensor.register_hook",
    "Tensor.register_post_accumulate_grad_hook", "Tensor.resize", "Tensor.resize_as", "Tensor.retain_grad",
    "torch.as_strided_scatter", "torch.as_tensor", "torch.convolution", "torch.ctc_loss", "torch.gru", "torch.istft",
    "torch.linalg.ldl_solve", "torch.linalg.lu_solve", "torch.lobpcg", "torch.lstm",
    "torch.lstm_cell", "torch.lu_solve", "torch.range", "torch.rnn_relu", "torch.rnn_tanh", "torch.segment_reduce",
    "torch.unravel_index",
}  # fmt: skip


@pytest.mark.parametrize("kind", ["function", "functional", "linalg", "special", "method"])
def test_signatures(torch: Any, kind: str) -> None:
    wrong = []
    for target in find_targets(gpunet, torch):
        if target.kind != kind or not target.overloads:
            continue
        with quietly():
            verdicts = [judge(call, torch, gpunet, Random(0)) for call in spellings(target, torch, gpunet)]
        if not verdicts and str(target) not in UNDRAWN:
            wrong.append(f"{target}: PyTorch accepted none of the drawn calls")
        for v in verdicts:
            if v.kind not in (EQUAL, BOTH_REFUSE, CRASH) and find_difference(v) is None:
                wrong.append(f"{v.text}\n    {v.kind}: {v.detail}\n    PyTorch: {v.theirs}\n    gpunet:  {v.ours}")
    assert not wrong, "\n".join([f"{len(wrong)} spellings differ", *wrong])
