"""Shapes of arguments that fit together, for functions of several tensors that do not broadcast."""

from __future__ import annotations

Shapes = tuple[tuple[int, ...], ...]

_MATRICES: tuple[Shapes, ...] = (((2, 2),), ((3, 3),), ((2, 3),), ((3, 2),), ((2, 2, 2),), ((0, 0),), ((1, 1),), ((3, 0),))
_SQUARE: tuple[Shapes, ...] = (((2, 2),), ((3, 3),), ((1, 1),), ((2, 3, 3),), ((0, 0),), ((2, 1, 2, 2),))

#: The name of a function -> the shapes of its tensors, of several kinds.
FITTING: dict[str, tuple[Shapes, ...]] = {
    "addmm": (((2, 3), (2, 4), (4, 3)), ((3,), (2, 1), (1, 3)), ((), (2, 0), (0, 3)), ((1, 1), (2, 2), (2, 2))),
    "addmv": (((2,), (2, 3), (3,)), ((), (2, 1), (1,)), ((1,), (3, 2), (2,)), ((2,), (2, 0), (0,))),
    "addr": (((2, 3), (2,), (3,)), ((3,), (2,), (3,)), ((), (1,), (3,)), ((2, 0), (2,), (0,))),
    "baddbmm": (((2, 2, 3), (2, 2, 1), (2, 1, 3)), ((3,), (1, 2, 2), (1, 2, 3)), ((), (2, 1, 0), (2, 0, 1))),
    "addbmm": (((2, 3), (2, 2, 1), (2, 1, 3)), ((3,), (1, 2, 2), (1, 2, 3)), ((), (2, 1, 0), (2, 0, 1))),
    "mv": (((2, 3), (3,)), ((3, 1), (1,)), ((2, 0), (0,))),
    "vdot": (((3,), (3,)), ((1,), (1,)), ((0,), (0,))),
    "outer": (((3,), (2,)), ((1,), (4,)), ((0,), (3,))),
    "ger": (((3,), (2,)), ((1,), (4,)), ((0,), (3,))),
    "inner": (((2, 3), (3,)), ((3,), (3,)), ((), (2, 2)), ((2, 1, 2), (3, 2)), ((2, 0), (0,))),
    "kron": (((2, 3), (2,)), ((2, 2), (2, 2)), ((), (3,)), ((2, 1, 2), (1, 3)), ((0,), (2,))),
    "tensordot": (((2, 3), (3, 2)), ((2, 3, 2), (3, 2)), ((3,), (3,)), ((2, 2), (2, 2))),
    "trace": _MATRICES,
    "bincount": (((3,), (3,)), ((0,), (0,))),
    **dict.fromkeys(
        (
            "inverse", "inv", "det", "slogdet", "logdet", "cholesky", "cholesky_ex", "cholesky_inverse", "eig", "eigh", "eigvals",
            "eigvalsh", "ldl_factor", "ldl_factor_ex", "matrix_power", "cond",
        ),
        _SQUARE,
    ),
    **dict.fromkeys(("qr", "svd", "svdvals", "pinv", "pinverse", "matrix_rank", "matrix_norm"), (*_MATRICES, *_SQUARE)),
    "solve": (((2, 2), (2, 3)), ((3, 3), (3,)), ((2, 2, 2), (2, 1)), ((2, 2, 2), (2, 2)), ((0, 0), (0, 2)), ((1, 1), (3, 1, 2))),
    "solve_ex": (((2, 2), (2, 3)), ((3, 3), (3,)), ((2, 2, 2), (2, 2))),
    "solve_triangular": (((2, 2), (2, 3)), ((3, 3), (3, 1)), ((2, 2, 2), (2, 1)), ((0, 0), (0, 2))),
    "cholesky_solve": (((2, 3), (2, 2)), ((3, 1), (3, 3)), ((2, 2, 1), (2, 2, 2))),
    "lstsq": (((3, 2), (3, 2)), ((2, 3), (2, 1)), ((2, 2), (2, 2)), ((2, 3, 2), (2, 3, 1)), ((2, 3, 2), (2, 3))),
    "cross": (((3,), (3,)), ((2, 3), (2, 3)), ((3, 2), (3, 2)), ((2, 3), (1, 3)), ((3, 3), (3, 3))),
    "vander": (((3,),), ((0,),), ((1,),)),
    **dict.fromkeys(
        ("layer_norm", "native_layer_norm", "rms_norm"),
        (((2, 3), (3,), (3,)), ((2, 2, 3), (2, 3), (2, 3)), ((0, 2), (2,), (2,))),
    ),
    **dict.fromkeys(
        ("batch_norm", "group_norm", "instance_norm", "native_batch_norm"),
        tuple((shape, *((shape[1],),) * 4) for shape in ((3, 2), (2, 4, 2), (2, 2, 2, 3), (1, 3), (2, 3, 1), (0, 2, 3))),
    ),
    "scaled_dot_product_attention": (
        ((2, 3), (4, 3), (4, 1), (2, 4)), ((2, 3, 2), (2, 2, 2), (2, 2, 3), (3, 2)), ((1, 2, 3, 2), (2, 1, 4, 2), (4, 1), (3, 4)),
        ((4, 2, 1), (2, 3, 1), (2, 3, 2), (2, 3)), ((0, 2), (3, 2), (3, 2), (3,)),
    ),
    "multi_head_attention_forward": (
        ((2, 1, 4), (3, 1, 4), (3, 1, 4), (12, 4), (12,), (1, 1, 4), (1, 1, 4), (4, 4), (4,), (1, 3), (2, 3)),
    ),
    "conv_tbc": (((5, 2, 2), (3, 2, 4), (4,)), ((4, 1, 3), (2, 3, 1), (1,))),
    "bilinear": (((2, 3), (2, 2), (4, 3, 2), (4,)), ((3,), (2,), (1, 3, 2), (1,)), ((2, 1, 2), (2, 1, 2), (2, 2, 2), (2,))),
    "gru_cell": (((2, 3), (2, 2), (6, 3), (6, 2), (6,), (6,)),),
    **dict.fromkeys(("rnn_relu_cell", "rnn_tanh_cell"), (((2, 3), (2, 2), (2, 3), (2, 2), (2,), (2,)),)),
    "geqrf": _MATRICES,
    "orgqr": (((3, 2), (2,)), ((2, 2), (1,)), ((2, 3, 2), (2, 2))),
    "ormqr": (((3, 2), (2,), (3, 2)), ((2, 2), (2,), (2, 2)), ((2, 3, 3), (2, 3), (2, 3, 3))),
    "triangular_solve": (((2, 3), (2, 2)), ((3, 1), (3, 3)), ((2, 2, 1), (2, 2, 2)), ((0, 2), (0, 0))),
    "nuclear_norm": (((2, 3),), ((3, 3),), ((3, 1),)),
    **dict.fromkeys(("svd_lowrank", "pca_lowrank"), (((7, 6),), ((6, 8),), ((2, 6, 6),))),
    "pdist": (((3, 2),), ((4, 1),), ((1, 3),), ((0, 2),), ((3, 0),)),
    "combinations": (((3,),), ((4,),), ((0,),), ((1,),)),
    "hsplit": (((2, 4),), ((4,),), ((2, 3, 2),)),
    "vsplit": (((4, 2),), ((3, 1, 2),)),
    "dsplit": (((2, 1, 4),), ((1, 2, 3, 2),)),
}
#: The names of functions of a list of vectors.
OF_VECTORS = ("meshgrid", "cartesian_prod")
#: Functions of a list of matrices that fit.
OF_MATRICES = ("chain_matmul", "block_diag", "multi_dot")
#: Functions that take their tensors one by one.
STARRED = ("block_diag", "broadcast_tensors", "cartesian_prod", "chain_matmul", "einsum")
#: Functions of LAPACK, whose results for NaN and infinity depend on the library.
LAPACK = (
    "inverse", "logdet", "slogdet", "det", "cholesky", "cholesky_inverse", "cholesky_solve", "qr", "svd", "pinverse",
    "matrix_power", "geqrf", "orgqr", "ormqr", "triangular_solve", "svd_lowrank", "pca_lowrank", "nuclear_norm",
)  # fmt: skip
#: Equations of einsum, and shapes of operands.
EQUATIONS: tuple[tuple[str, Shapes], ...] = (
    ("ij,jk->ik", ((2, 3), (3, 2))), ("ij,jk", ((2, 3), (3, 2))), ("ii->i", ((3, 3),)), ("ii", ((2, 2),)), ("ij->ji", ((2, 3),)),
    ("i,j->ij", ((3,), (2,))), ("i,i", ((3,), (3,))), ("bij,bjk->bik", ((2, 2, 3), (2, 3, 1))), ("ij,ij->j", ((2, 3), (1, 3))),
    ("...ij,...jk->...ik", ((2, 2, 3), (3, 2))), ("ij,jk,kl->il", ((2, 3), (3, 2), (2, 2))), ("i,i,i->i", ((3,), (3,), (3,))),
    ("bn,anm,bm->ba", ((2, 2), (3, 2, 1), (2, 1))), ("...,...->...", ((2, 3), (3,))), ("ij->", ((0, 3),)), ("i->ii", ((3,),)),
    ("ij,jk->ij", ((2, 3), (3, 2))), ("aB,Bc", ((2, 3), (3, 2))), (" i j , j ", ((2, 3), (3,))), ("ij,j->k", ((2, 3), (3,))),
)  # fmt: skip
#: Functions that write values at indices.
WRITE = ("index_add", "index_copy", "masked_scatter", "put", "scatter", "scatter_add", "scatter_reduce")
#: Functions that return places; PyTorch does not say which of equal elements comes first.
RANKED = ("topk", "median", "nanmedian", "kthvalue")
