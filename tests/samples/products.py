"""Samples of einsum and its kin, and of products that are added to a tensor."""

from __future__ import annotations

import numpy

import gpunet
from tests.samples.inputs import ROWS, normal
from tests.samples.row import SAME, row

for _equation, _op, *_inputs in (
    ("ij,jk->ik", "_matmul", normal(ROWS, 4), normal(4, 3)),
    ("ij,kj->ki", "_matmul", normal(ROWS, 4), normal(3, 4)),
    ("bhid,bhjd->bhij", "_matmul", normal(2, 2, 3, 4), normal(2, 2, 5, 4)),
    ("...ij,jk->...ik", "_matmul", normal(2, 3, 4), normal(4, 2)),
    ("bn,anm,bm->ba", "_matmul", normal(ROWS, 3), normal(2, 3, 4), normal(ROWS, 4)),
    ("i,i->", "_matmul", normal(ROWS), normal(ROWS)),
    ("i,j->ij", "_mul", normal(ROWS), normal(3)),
    ("ii->i", "_diagonal", normal(3, 3)),
    ("iij,ij->j", "_matmul", normal(3, 3, 2), normal(3, 2)),
    ("ijk->k", "_sum", normal(ROWS, 3, 4)),
    ("ij->ji", "_permute", normal(ROWS, 3)),
    ("ij,ij->ij", "_mul", normal(ROWS, 1), normal(ROWS, 3)),
):
    row(
        _op, lambda *x, e=_equation: gpunet.einsum(e, *x), lambda *x, e=_equation: numpy.einsum(e, *x), *_inputs,
        torch=lambda torch, *x, e=_equation: torch.einsum(e, *x), name=f"einsum {_equation}",
    )  # fmt: skip
row(
    "_matmul", lambda a, b: gpunet.tensordot(a, b, [[1, 0], [0, 2]]), lambda a, b: numpy.tensordot(a, b, [[1, 0], [0, 2]]),
    normal(2, 3, 4), normal(3, 5, 2), torch=lambda torch, a, b: torch.tensordot(a, b, [[1, 0], [0, 2]]), name="tensordot",
)  # fmt: skip
row("_mul", gpunet.outer, numpy.outer, normal(ROWS), normal(3), torch="outer", name="outer")
row("_mul", gpunet.kron, numpy.kron, normal(2, 3), normal(4), torch="kron", name="kron")
row("_matmul", gpunet.inner, numpy.inner, normal(ROWS, 3), normal(2, 3), torch="inner", name="inner")
row("_matmul", gpunet.mv, numpy.dot, normal(ROWS, 3), normal(3), torch="mv", name="mv")
row("_matmul", gpunet.vdot, numpy.dot, normal(4), normal(4), torch="vdot", name="vdot")
row(
    "_matmul", gpunet.chain_matmul, lambda a, b, c: a @ b @ c, normal(ROWS, 3), normal(3, 5), normal(5, 2),
    torch=lambda torch, *x: torch.linalg.multi_dot(x), name="chain_matmul",
)  # fmt: skip
for _beta, _alpha in ((1, 1), (0.5, -2.0), (0, 1.5)):
    for _name, _product, *_inputs in (
        ("addmm", numpy.matmul, normal(4), normal(ROWS, 3), normal(3, 4)),
        ("addmv", numpy.matmul, normal(1), normal(ROWS, 3), normal(3)),
        ("addr", numpy.outer, normal(4), normal(ROWS), normal(4)),
        ("baddbmm", numpy.matmul, normal(3, 4), normal(ROWS, 3, 2), normal(ROWS, 2, 4)),
        ("addbmm", lambda a, b: (a @ b).sum(0), normal(3, 4), normal(ROWS, 3, 2), normal(ROWS, 2, 4)),
    ):
        row(
            "overwrite" if not _beta else "_add", lambda *x, f=_name, b=_beta, a=_alpha: getattr(gpunet, f)(*x, beta=b, alpha=a),
            lambda x, y, z, f=_product, b=_beta, a=_alpha: b * x + a * f(y, z), *_inputs,
            torch=lambda torch, *x, f=_name, b=_beta, a=_alpha: getattr(torch, f)(*x, beta=b, alpha=a),
            name=f"{_name} {_beta} {_alpha}",
        )  # fmt: skip
row("_add", lambda x, a, b: (x * 1).addmm_(a, b), lambda x, a, b: x + a @ b, normal(ROWS, 4), normal(ROWS, 3), normal(3, 4),
    torch=SAME, name="addmm_")  # fmt: skip
