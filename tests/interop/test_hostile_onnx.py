"""Damaged and hostile ONNX files are refused by a FormatError that says what is wrong."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy
import pytest

import gpunet
from gpunet import nn
from gpunet.errors import FormatError

onnx = pytest.importorskip("onnx")
import gpunet.onnx  # noqa: E402
from tests.interop import mutate_onnx  # noqa: E402


def test_mutated_files_are_loaded_or_refused() -> None:
    counts = Counter(mutate_onnx.load(content) for content in mutate_onnx.mutated(mutate_onnx.sources(), 300, 1))
    assert counts["refused"] > 100 and counts["loaded"] > 3


@pytest.mark.exhaustive
def test_many_mutated_files() -> None:
    Counter(mutate_onnx.load(content) for content in mutate_onnx.mutated(mutate_onnx.sources(), 10_000, 2))


def model(change: Any = None) -> bytes:
    proto = gpunet.onnx.export(nn.Sequential(nn.Linear(3, 2), nn.ReLU()), gpunet.randn(4, 3), verify=False)
    if change is not None:
        change(proto)
    content: bytes = proto.SerializeToString()
    return content


def huge(proto: Any) -> None:
    proto.graph.initializer[0].dims[:] = [2**40, 2**20]


def external(proto: Any) -> None:
    entry = proto.graph.initializer[0].external_data.add()
    entry.key, entry.value = "location", "../../etc/passwd"
    proto.graph.initializer[0].data_location = onnx.TensorProto.EXTERNAL


def loop(proto: Any) -> None:
    proto.graph.node[0].input[0] = proto.graph.node[1].output[0]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it has no graph"),
        (b"not a model", "is damaged, or is no ONNX file"),
        (model(huge), r"tensor '0.weight' of shape \(1099511627776, 1048576\) and float32 holds 24 bytes; expected"),
        (model(external), "'0.weight' is in another file, which is not read"),
        (model(loop), r"\(Gemm\) reads 'output', which nothing before it makes"),
        (model(lambda p: setattr(p.graph.node[1], "op_type", "Loop")), r"\(Loop\): this operator is not supported; see"),
        (model(lambda p: setattr(p.graph.node[1], "domain", "com.microsoft")), "has an operator of the domain 'com.microsoft'"),
        (model(lambda p: setattr(p.opset_import[0], "version", 9)), "the version of the operators is 9; expected 13 to 23"),
        (model(lambda p: p.graph.node[1].input.append("input")), r"\(Relu\) has 2 inputs; expected 1"),
        (model(lambda p: p.graph.node[0].attribute.add(name="odd", type=2, i=1)), "attribute 'odd' is not supported"),
        (model(lambda p: p.graph.output.add(name="z")), "the output 'z' is made by no node"),
        (model(lambda p: setattr(p.graph.initializer[0], "data_type", 8)), "has elements of type 8"),
    ],
)
def test_what_is_refused(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(content)
    with pytest.raises(FormatError, match=message) as caught:
        gpunet.onnx.load(path)
    assert str(path) in str(caught.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nothing.onnx"):
        with pytest.raises(FormatError, match="cannot be read"):
            gpunet.onnx.load(path)


def test_a_node_that_fails_is_named() -> None:
    net = gpunet.onnx.load(model(lambda p: p.graph.initializer[1].dims.__setitem__(slice(None), [1, 2])))
    assert net(gpunet.randn(5, 3)).shape == (5, 2)
    with pytest.raises(FormatError, match=r"the file: node '.*gemm' \(Gemm\): "):
        net(gpunet.from_numpy(numpy.zeros((5, 4), numpy.float32)))
