"""Random arguments for parameters, by their type and name."""

from __future__ import annotations

import math
import re

from tests.torch_calls.fitting import EQUATIONS, OF_MATRICES, OF_VECTORS, RANKED, STARRED, WRITE
from tests.torch_calls.schemas import Parameter
from tests.torch_calls.values import BACKENDS, DIM_NAMES, DTYPES, FLOATING, SHAPES, WORDS, Values

#: The first tensor of functions that take windows or positions of it.
_SAMPLED: dict[str, tuple[int, ...]] = {
    "F.unfold": (2, 1, 4, 5), "F.fold": (1, 4, 4), "F.grid_sample": (1, 2, 3, 4), "F.affine_grid": (1, 2, 3),
    "torch.affine_grid_generator": (1, 2, 3), "torch.grid_sampler": (1, 2, 3, 4), "torch.grid_sampler_2d": (1, 2, 3, 4),
    "torch.grid_sampler_3d": (1, 2, 3, 2, 3),
}  # fmt: skip
#: Functions that read rows of a table.
_TABLE = ("embedding", "embedding_bag")
_RESIZE = ("interpolate", "upsample", "upsample_nearest", "upsample_bilinear")


def _is_convolution(function: str) -> bool:
    return re.fullmatch(r"conv(_transpose)?\dd", function) is not None


class Arguments(Values):
    """Draws arguments that fit a parameter and the arguments before it."""

    def argument(self, p: Parameter) -> str | None:
        """The source text of an argument; None to leave it out."""
        kind = "Tensor" if p.type.startswith("Tensor") else p.type.rstrip("?")
        if self.target.name == "tensordot" and p.name == "dims":
            return self.random.choice(("1", "2", "0", "([0], [1])", "[[-1], [0]]"))
        if self.target.name == "einsum" and p.name == "path":
            return None
        if p.name == "equation":
            equation, self.fitting = self.random.choice(EQUATIONS)
            return repr(equation)
        if p.type.endswith("?") and self.chance(0.15):
            return "None"
        if p.name == "ord":
            return self.random.choice(("2", "1", "-1", "'fro'", "'nuc'", "inf", "-inf", "-2", "3", "0", "None"))
        if p.name == "interpolation":
            return repr(self.random.choice(("linear", "lower", "higher", "midpoint", "nearest")))
        if p.name == "normalized_shape" and self.chance(0.9):
            count = max(1, len(self.fitting[0]) if self.fitting else 1)
            return repr(list(self.shape[-count:]))
        if p.name == "q":
            vector = self.tensor((2,), self.dtype, values=("0.25", "0.5", "0.75", "1.0"), is_plain=True)
            return vector if p.type.startswith("Tensor") else self.random.choice(("0.5", "0.25", "0.9", "0", "1"))
        if p.name == "mode" and self.target.name == "qr":
            return self.random.choice(("'reduced'", "'complete'", "'r'"))
        if p.name in ("driver", "UPLO"):
            return {"driver": self.random.choice(("None", "'gelsd'", "'gels'")), "UPLO": self.random.choice(("'L'", "'U'"))}[p.name]
        if self.target.name in _TABLE and self.chance(0.97):
            text = self.table_argument(p.name)
            if text is not None:
                return text
        if self.has_windows() and self.chance(0.95):
            text = self.window_argument(p.name)
            if text is not None:
                return text
        if self.target.name in _RESIZE and self.chance(0.95):
            text = self.resizing_argument(p.name)
            if text is not None:
                return text
        if p.type.startswith("Tensor?["):
            return f"({self.indices((2,), self.shape[0] if self.shape else 1, low=-1)},)"
        if p.type.startswith("Tensor["):
            return self.tensors() if self.target.name not in STARRED else f"*{self.tensors()}"
        if kind == "Tensor":
            return self.tensor_argument(p.name)
        if kind in BACKENDS:
            return self.backend_argument(kind, p)
        if p.name == "dtype" or kind == "ScalarType":
            return f"torch.{self.random.choice(DTYPES)}" if self.chance(0.8) else "None"
        if kind.startswith(("int[", "SymInt[")):
            return self.dims() if p.name in DIM_NAMES and self.target.name != "permute" else self.sizes(p.name)
        if kind in ("int", "SymInt"):
            return self.integer(p)
        if kind == "bool":
            return self.random.choice(("True", "False")) if not self.chance(0.02) else self.random.choice(("1", "0", "None"))
        if kind == "str" or (p.name == "p" and self.chance(0.2)):
            return repr(self.random.choice((*WORDS.get(p.name, ("x",)), *(("other",) if self.chance(0.05) else ()))))
        if kind == "float":
            return self.random.choice(("0.5", "0.25", "0.0", "1", "2.0", "1.0", "-0.5")) if not self.is_special else self.number()
        if kind == "Scalar" or p.name in ("p", "value"):
            return self.number(p.name == "correction")
        if kind == "Array":
            return self.array()
        return self.anything(p.name)

    def has_windows(self) -> bool:
        """Whether the function moves windows, or samples at positions."""
        name = self.target.name
        return "pool" in name or _is_convolution(name) or self.target.full_name in _SAMPLED

    def window_argument(self, name: str) -> str | None:
        """Numbers of windows that mostly fit; None for an argument like any other."""
        function = self.target.name
        if function.startswith(("affine_grid", "grid_sample")):
            return {"interpolation_mode": self.random.choice("01"), "padding_mode": self.random.choice("012")}.get(name) if (
                function.startswith("grid_sampler")
            ) else {"size": "(1, 1, 2, 3)", "mode": "'bilinear'", "padding_mode": "'border'"}.get(name)
        if function == "fold":  # of one shape
            return {"output_size": "(3, 3)", "kernel_size": "2", "stride": "1", "padding": "0", "dilation": "1"}.get(name)
        dims = 2 if function == "unfold" else int(re.findall(r"(\d)d", function)[0])
        low, high = {
            "kernel_size": (1, 3), "output_size": (1, 4), "stride": (1, 3), "padding": (0, 1), "dilation": (1, 2), "groups": (1, 1),
            "output_padding": (0, 0),
        }.get(name, (1, 0))  # fmt: skip
        if high < low:
            others = {"divisor_override": (2, 3, -1), "norm_type": (1, 2, 3.0, 0.5, 0)}
            return repr(self.random.choice(others[name])) if name in others else None
        if name == "groups" or (name in ("padding", "dilation") and self.chance(0.5)):
            return repr(low)
        numbers = tuple(self.random.randint(low, high) for _ in range(dims))
        return repr(numbers if self.chance(0.5) else numbers[0])

    def table_argument(self, name: str) -> str | None:
        """Rows of a table, and bags of them, that mostly fit; None for an argument like any other."""
        random, rows = self.random, 4
        if name in ("input", "indices"):
            shapes = ((2, 3), (3, 1), (5,), (1,), (0,), (0, 2), (2, 0))
            vectors = ((5,), (3,), (1,), (0,))
            is_bag, is_native = self.target.name == "embedding_bag", self.target.kind == "function"
            self.shape = random.choice((vectors if is_native else shapes) if is_bag else (*shapes, (), (2, 1, 3)))
            return self.indices(self.shape, rows, "int64" if self.chance(0.8) else "int32")
        if name == "weight":
            self.dtype = random.choice(FLOATING) if self.chance(0.3) else "float64"
            return self.tensor((rows, 2), self.dtype)
        if name == "offsets":
            if len(self.shape) != 1:
                return "None"
            # PyTorch ends the process for one offset with include_last_offset
            starts = sorted([0, *random.choices(range(self.shape[0] + 1), k=random.randint(1, 3))])
            return f"torch.tensor({starts})"
        if name == "per_sample_weights":
            return self.tensor(self.shape, self.dtype) if self.words.get("mode") == "sum" and self.chance(0.6) else "None"
        if name == "mode":
            self.words["mode"] = random.choice(("sum", "mean", "max"))
            words = ("sum", "mean", "max")
            return repr(words.index(self.words["mode"]) if self.target.kind == "function" else self.words["mode"])
        return {
            "max_norm": random.choice(("None", "None", "2.0")), "padding_idx": random.choice(("None", "0", "1", "-1")),
            "sparse": "False", "scale_grad_by_freq": repr(self.words.get("mode") != "max" and self.chance(0.3)),
        }.get(name)  # fmt: skip

    def resizing_argument(self, name: str) -> str | None:
        """Sizes or factors, and modes that mostly fit; None for an argument like any other."""
        dims = max(len(self.shape) - 2, 1)
        if name in ("size", "scale_factor"):
            if (name == "size") == ("size" not in self.ints and self.chance(0.5)):
                self.ints["size"] = 1
                drawn = [self.random.choice((1, 2, 3, 5) if name == "size" else (0.5, 1.5, 2, 2.25)) for _ in range(dims)]
                return repr(tuple(drawn) if self.chance(0.5) else drawn[0])
            return "None"
        if name == "mode":
            smooth = {1: ("linear",), 2: ("bilinear", "bicubic"), 3: ("trilinear",)}.get(dims, ())
            return repr(self.random.choice(("nearest", "nearest-exact", "area", *smooth)))
        return "None" if name == "align_corners" and self.chance(0.5) else None

    def array(self) -> str:
        """A NumPy array."""
        dtype = "float32" if self.dtype == "bfloat16" else self.dtype
        return f"np.array({self.nested(self.shape, dtype, '', ())}, {dtype!r})"

    def anything(self, name: str) -> str:
        if name in ("a", "b", "var"):
            return self.tensor_argument(name)
        if name in DIM_NAMES:
            return self.dims()
        if name in ("split_size", "split_size_or_sections", "sizes"):
            return self.sizes(name)
        if name in ("keepdim", "retain_graph", "create_graph", "sorted", "return_inverse", "return_counts"):
            return self.random.choice(("True", "False"))
        if name in ("data", "obj"):
            values = self.nested(self.shape, self.dtype, "", ())
            return self.random.choice((values, values, self.array(), self.tensor(self.shape, self.dtype), self.number()))
        if name == "gradient":
            return self.tensor(self.shape, self.dtypes.get("x", "float32"), is_plain=True)
        return "None"

    def backend_argument(self, kind: str, p: Parameter) -> str | None:
        if p.default is not None and not self.chance(0.06):
            return None
        texts = {
            "Layout": "torch.strided", "Device": "'cpu'", "Generator": "None",
            "MemoryFormat": self.random.choice(("torch.contiguous_format", "torch.preserve_format")),
        }  # fmt: skip
        return texts[kind]

    def integer(self, p: Parameter) -> str:
        random, name = self.random, p.name
        if name in DIM_NAMES:
            return self.dim(extra=1 if self.target.name in ("unsqueeze", "stack") else 0)
        size = max(self.shape, default=1)
        low, high = {
            "k": (0, size + 1), "chunks": (1, 4), "diagonal": (-3, 3), "decimals": (-2, 3), "n": (0, 4), "m": (0, 4),
            "high": (1, 9), "low": (-5, 0), "steps": (0, 6), "num_classes": (-1, 7), "ignore_index": (-1, 2), "split_size": (1, 3),
            "num_groups": (1, 2), "size": (1, 4), "num_heads": (1, 2), "embed_dim_to_check": (4, 4),
        }.get(name, (-2, 4))  # fmt: skip
        low = 0 if self.chance(0.03) else low
        value = random.randint(low, high)
        self.ints[name] = value
        return f"np.int64({value})" if self.chance(0.03) else repr(value)

    def tensors(self) -> str:
        count, dim = self.random.randint(1, 3), self.random.randint(0, max(len(self.shape) - 1, 0))
        if self.target.name == "multi_dot":
            self.fitting = self.random.choice((((2, 3), (3, 1), (1, 2)), ((3,), (3, 2)), ((2, 2), (2,)), ((2,), (2,))))
        if self.fitting:
            names = [self.tensor(shape, self.dtype) for shape in self.fitting]
            return f"[{', '.join(names)}]"
        if self.target.name in OF_VECTORS:
            self.shape = (self.random.randint(0, 3),)
        if self.target.name in OF_MATRICES:
            self.shape = (2, 2)
        names = []
        for _ in range(count):
            shape = self.shape
            if self.target.name in ("cat", "concat", "concatenate", "hstack", "vstack", "dstack") and shape:
                shape = (*shape[:dim], self.random.randint(0, 2), *shape[dim + 1 :]) if self.chance(0.6) else shape
                shape = (0,) if self.chance(0.05) else shape
            elif self.chance(0.05):
                shape = self.random.choice(SHAPES)
            names.append(self.tensor(shape, self.dtype if self.chance(0.8) else self.random.choice(DTYPES)))
        return f"[{', '.join(names)}]" if self.chance(0.6) else f"({', '.join(names)},)"

    def other_dtype(self) -> str:
        return self.dtype if self.chance(0.6) else self.random.choice(DTYPES)

    def tensor_argument(self, name: str) -> str:
        function, shape = self.target.name.strip("_"), self.shape
        is_first = not self.shapes
        if self.fitting and self.chance(0.95):
            shape, self.fitting = self.fitting[0], self.fitting[1:]
            self.shape = shape if is_first else self.shape
            return self.tensor(shape, self.dtype if self.chance(0.93) else self.other_dtype())
        if function == "lu_unpack":
            return self.factored_argument(name)
        if function == "linear_cross_entropy" and self.chance(0.95):
            return self.linear_loss_argument(name)
        if name in ("self", "input", "tensor", "tensors") and (is_first or name == "input"):
            return self.first_tensor(function)
        if is_first and name in ("x1", "input1", "anchor"):
            return self.first_tensor(function)
        if function.endswith("_loss") and name in ("positive", "negative", "input2", "target", "var", "weight"):
            text = self.loss_argument(function, name)
            if text is not None:
                return text
        if name in ("index", "indices"):
            return self.index_argument(function)
        if name == "values" and function == "index_put" and self.chance(0.95):
            return self.tensor(self.random.choice(((2, *shape[1:]), shape[1:], ())), self.dtype)
        if name in ("src", "source") and function in WRITE:
            return self.source_argument(function)
        if name in ("mask", "condition"):
            if is_first:
                return self.tensor(shape, "bool" if self.chance(0.95) else self.random.choice(DTYPES))
            return self.tensor(self.broadcastable(shape), "bool" if self.chance(0.95) else self.random.choice(DTYPES))
        if name in ("mat2", "vec2", "vec") or function in ("matmul", "bmm", "mm", "dot", "rmatmul", "imatmul", "mv", "outer"):
            return self.matrix(function)
        if function == "linear" and name in ("weight", "bias"):
            features = shape[-1] if shape else 2
            return self.tensor((2, features) if name == "weight" else (2,), self.dtype)
        if _is_convolution(function) and name == "weight" and self.chance(0.95):
            dims = int(function[-2])
            channels = shape[-1 - dims] if len(shape) > dims else 1
            filters = [self.random.randint(1, 3) for _ in range(dims)]
            ends = (channels, 2) if "transpose" in function else (2, channels // self.random.choice((1, 1, 1, 2)))
            return self.tensor((*ends, *filters), self.dtype)
        if _is_convolution(function) and name == "bias":
            return self.tensor((2,), self.dtype)
        if name == "grid" and self.chance(0.95):
            return self.tensor((1, 2, 2, 3, 3) if function == "grid_sampler_3d" else (1, 2, 3, 2), self.dtype)
        if name == "target" and function == "cross_entropy":
            return self.labels()
        if name == "weight" and function in ("cross_entropy", "nll_loss", "multi_margin_loss"):
            classes = shape[1] if len(shape) > 1 else (shape[0] if shape else 1)
            return self.tensor((classes,), self.dtype, kind="probability", is_plain=True)
        if name == "target":
            wanted = shape if self.chance(0.9) else self.broadcastable(shape)
            dtype = self.other_dtype() if self.chance(0.2) else self.dtype
            return self.tensor(wanted, dtype, kind="probability" if "cross" in function else "")
        if name == "value":
            return self.tensor((), self.other_dtype())
        if name == "repeats":
            return self.tensor((), "int64", values=("0", "1", "2"), is_plain=True)
        return self.tensor(self.broadcastable(shape), self.other_dtype())

    def loss_argument(self, function: str, name: str) -> str | None:
        """An argument of a loss beside its input; None for one like any other."""
        shape = self.shape
        if name == "target" and function in ("nll_loss", "multi_margin_loss"):
            return self.labels()
        if name == "target" and function == "multilabel_margin_loss":
            classes = shape[-1] if shape else 1
            return self.tensor(shape, "int64", values=("-1", *map(repr, range(classes))), is_plain=True)
        if name == "target" and function == "cosine_embedding_loss":
            return self.tensor(shape[:-1], "int64", values=("-1", "1"), is_plain=True)
        if name == "var":
            return self.tensor(shape, self.dtype, kind="probability")
        if name in ("positive", "negative", "input2"):
            return self.tensor(shape if self.chance(0.8) else self.broadcastable(shape), self.other_dtype())
        return None

    def linear_loss_argument(self, name: str) -> str:
        """An argument of ``linear_cross_entropy``: of two rows, three features and four classes."""
        if name == "target":
            return self.tensor((2,), "int64", values=tuple(map(repr, range(4))), is_plain=True)
        if name == "input":
            self.shape, self.dtype = (2, 3), self.random.choice(FLOATING)
        shapes = {"input": (2, 3), "linear_weight": (4, 3)}
        return self.tensor(shapes.get(name, (4,)), self.dtype)

    def factored_argument(self, name: str) -> str:
        """An argument of ``lu_unpack``; PyTorch reads beyond the end of pivots that do not fit."""
        if name == "LU_data":
            self.shape = self.random.choice([s for s in SHAPES if len(s) > 1])
            return self.tensor(self.shape, self.dtype)
        rows, columns = self.shape[-2:]
        values = tuple(map(repr, range(1, rows + 1)))
        return self.tensor((*self.shape[:-2], min(rows, columns)), "int32", values=values, is_plain=True)

    def first_tensor(self, function: str) -> str:
        random = self.random
        if function in ("mm", "matmul", "rmatmul", "linear", "bmm", "dot") and self.chance(0.9):
            ndims = {"mm": (2,), "bmm": (3,), "dot": (1,), "linear": (1, 2, 3)}.get(function, (1, 2, 3))
            self.shape = random.choice([s for s in SHAPES if len(s) in ndims])
        is_loss = function.endswith(("_loss", "cross_entropy", "with_logits")) and function not in ("mse_loss", "l1_loss")
        if (is_loss or function in ("linear", "kl_div", "cosine_similarity", "pairwise_distance")) and self.chance(0.85):
            self.dtype = random.choice(FLOATING)
        if function in ("cross_entropy", "nll_loss") and self.chance(0.9):
            self.shape = random.choice([s for s in SHAPES if len(s) in (1, 2, 3)])
        if function in ("multi_margin_loss", "multilabel_margin_loss", "cosine_embedding_loss") and self.chance(0.9):
            self.shape = random.choice([s for s in SHAPES if len(s) in (1, 2)])
        if function == "binary_cross_entropy":  # beyond 0 and 1 nan on a GPU, at 0 and 1 in PyTorch's halves
            return self.tensor(self.shape, self.dtype if "float" in self.dtype else "float32", values=("0.125", "0.5", "0.875"))
        if _is_convolution(function) and function != "conv2d":
            shape = random.choice(((2, 2, 4, 3, 5), (1, 1, 3, 3, 2), (0, 2, 3, 3, 3)))[: int(function[-2]) + 2]
            self.shape = shape if self.chance(0.8) else shape[1:]
            self.dtype = random.choice(FLOATING) if self.chance(0.8) else self.dtype
        if function == "conv2d":
            self.shape = random.choice(((2, 2, 4, 5), (1, 1, 3, 3), (2, 3, 4), (2, 5, 4), (0, 2, 3, 3), (1, 2, 6, 3), *SHAPES[:1]))
            self.dtype = random.choice(FLOATING) if self.chance(0.8) else self.dtype
        if "pool" in function and self.chance(0.95):
            dims = int(function.partition("pool")[2][0])
            self.shape = (2, 1, 5, 4, 3)[: dims + 2] if self.chance(0.8) else (random.choice((0, 2)), *(2, 3, 4)[: dims])
            self.dtype = random.choice(FLOATING) if self.chance(0.9) else self.dtype
            return self.tensor(self.shape, self.dtype)
        if self.target.full_name in _SAMPLED and self.chance(0.9):
            self.shape, self.dtype = _SAMPLED[self.target.full_name], random.choice(FLOATING)
        if function in _RESIZE and self.chance(0.95):
            self.shape = (2, 1, 3, 4, 2)[: random.choice((3, 4, 4, 5)) if function != "upsample_bilinear" else 4]
            self.dtype = random.choice(FLOATING) if self.chance(0.9) else self.dtype
        if function == "bernoulli":
            return self.tensor(self.shape, self.dtype, kind="probability")
        if function in RANKED:
            return self.tensor(self.shape, self.dtype, kind="distinct")  # PyTorch does not say in which order ties come
        if function == "one_hot" and self.chance(0.85):
            return self.indices(self.shape, 4)
        return self.tensor(self.shape, self.dtype)

    def matrix(self, function: str) -> str:
        shape, random = self.shape, self.random
        inner = shape[-1] if shape else 1
        if function == "dot":
            return self.tensor((inner,), self.dtype if self.chance(0.9) else self.other_dtype())
        if function == "rmatmul":
            inner = shape[-2] if len(shape) > 1 else inner
            return self.tensor(random.choice(((inner,), (2, inner))), self.dtype)
        columns = random.choice((1, 2, 3, 0) if self.chance(0.2) else (1, 2, 3))
        choices = {"mm": [(inner, columns)], "bmm": [(*shape[:1], inner, columns)]}.get(
            function, [(inner,), (inner, columns), (*shape[:-2], inner, columns), (2, 1, inner, columns)]
        )
        picked = random.choice(choices) if not self.chance(0.05) else random.choice(SHAPES)
        return self.tensor(picked, self.dtype if self.chance(0.93) else self.other_dtype())

    def labels(self) -> str:
        shape = self.shape
        classes = shape[1] if len(shape) > 1 else (shape[0] if shape else 1)
        if self.chance(0.2):
            return self.tensor(shape, self.dtype, kind="probability")
        values = tuple(map(repr, range(classes))) + (("-100",) if self.chance(0.3) else ())
        if self.chance(0.02):
            values += (repr(classes),)
        return self.tensor((shape[0], *shape[2:]) if len(shape) > 1 else (), "int64", values=values or ("0",), is_plain=True)

    def index_argument(self, function: str) -> str:
        shape, dim = self.shape, self.ints.get("dim", 0)
        size = shape[dim] if -len(shape) <= dim < len(shape) else 1
        dtype = "int64" if self.chance(0.92) else self.random.choice(("int32", "uint8", "float32", "bool"))
        if function in ("take", "put"):
            count = math.prod(shape)
            return self.indices(self.random.choice(((2,), (1, 2), (), (3,))) if count else (0,), count, dtype, low=-count)
        if function.startswith("index_"):
            return self.indices((self.random.randint(0, 3),) if self.chance(0.9) else (), size, dtype)
        chosen = [self.random.randint(0 if self.chance(0.05) else 1, max(n, 1)) if n else 0 for n in shape]
        if shape and size and self.chance(0.3):
            chosen[dim if -len(shape) <= dim < len(shape) else 0] = self.random.randint(1, 4)
        return self.indices(tuple(chosen), size, dtype)

    def source_argument(self, function: str) -> str:
        """The values that are written at the indices drawn before."""
        shape, index = self.shape, list(self.shapes.values())[-1]
        if function in ("index_add", "index_copy"):
            dim = self.ints.get("dim", 0)
            if shape and -len(shape) <= dim < len(shape):
                shape = tuple(sum(index) if i == dim % len(shape) and index else n for i, n in enumerate(shape))
        elif function.startswith("scatter"):
            shape = tuple(n + self.chance(0.2) for n in index)
        elif function == "put":
            shape = index
        elif function == "masked_scatter":
            shape = (math.prod(shape) + self.random.randint(0, 2),)
        return self.tensor(shape if self.chance(0.95) else self.shape, self.dtype if self.chance(0.95) else self.other_dtype())

    # ---- index expressions ------------------------------------------------------------------------------------------

    def index_expression(self) -> str:
        if self.chance(0.12):
            return self.tensor(self.shape, "bool", is_plain=True)
        items: list[str] = []
        axis = 0
        while axis < len(self.shape) and not self.chance(0.1):
            n, kind = self.shape[axis], self.random.random()
            axis += 1
            if kind < 0.3:
                items.append(repr(self.random.randint(-n, n - 1) if n and not self.chance(0.02) else n))
            elif kind < 0.55:
                parts = [self.random.choice(("", "", "0", "1", "-1", "2", "-5", "7")) for _ in range(2)]
                items.append(":".join(parts) + self.random.choice(("", "", ":2", ":1")))
            elif kind < 0.68:
                dtype = "int64" if self.chance(0.75) else self.random.choice(("int32", "int32", "uint8"))
                items.append(self.indices(self.random.choice(((), (2,), (2, 1), (1,), (0,))), n, dtype))
            elif kind < 0.78:
                items.append(repr([self.random.randrange(n) for _ in range(2)]) if n else "[]")
            elif kind < 0.83:
                items.append(self.tensor((n,), "bool", is_plain=True))
            elif kind < 0.86:
                items.append(f"np.array({[self.random.randrange(n) for _ in range(2)] if n else []}, 'int64')")
            else:
                items.append(":")
        if self.chance(0.15):
            items.insert(self.random.randint(0, len(items)), "None")
        if self.chance(0.15):
            items.insert(self.random.randint(0, len(items)), "...")
        if self.chance(0.03):
            items.insert(self.random.randint(0, len(items)), self.random.choice(("True", "False", "'q'", "1.5", "5")))
        return ", ".join(items) or "..."
