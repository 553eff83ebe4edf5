"""Random calls as lines of Python, which run with PyTorch and, after ``import gpunet as torch``, with gpunet."""

from __future__ import annotations

import math
from random import Random
from typing import Any, NamedTuple

from tests.torch_calls.outcome import is_tensor, run
from tests.torch_calls.schemas import Overload, Parameter
from tests.torch_calls.targets import OPERATORS, Target

FLOATING = ("float32", "float64", "float16", "bfloat16")
INTEGERS = ("int64", "int32", "int16", "int8", "uint8")
DTYPES = (*FLOATING, *INTEGERS, "bool")
SHAPES = (
    (), (1,), (3,), (4,), (2, 3), (3, 2), (1, 3), (2, 1), (3, 3), (2, 2), (2, 3, 2), (1, 2, 3), (2, 1, 2), (2, 2, 1, 3),
    (0,), (0, 3), (2, 0), (2, 0, 3),
)  # fmt: skip
LIMITS = {"int64": 2**63, "int32": 2**31, "int16": 2**15, "int8": 2**7, "uint8": 2**8}
LARGEST = {"float16": 65504.0, "bfloat16": 3.3895313892515355e38, "float32": 3.4028234663852886e38, "float64": 1e308}
SMALLEST = {"float16": 6.1e-05, "bfloat16": 1.1754943508222875e-38, "float32": 1.1754943508222875e-38, "float64": 2.3e-308}
WORDS = {
    "reduction": ("mean", "sum", "none"), "rounding_mode": ("floor", "trunc"), "approximate": ("none", "tanh"),
    "mode": ("constant", "reflect", "replicate", "circular"), "p": ("fro", "nuc"), "indexing": ("ij", "xy"),
}  # fmt: skip
#: Parameters that name a dimension, and whether the dimension may lie one behind the last.
DIM_NAMES = {"dim", "dim0", "dim1", "axis0", "axis1", "start_dim", "end_dim", "dims", "source", "destination"}
NUMPY_NAMES = {"dim": "axis", "keepdim": "keepdims", "input": "x", "other": "x2"}
BACKENDS = ("Layout", "Device", "Generator", "MemoryFormat")


class Call(NamedTuple):
    """A call, and the statements that make its arguments."""

    target: Target
    setup: tuple[str, ...]
    statement: str  # sets r
    leaves: tuple[str, ...] = ()  # names of arguments that require grad

    @property
    def text(self) -> str:
        return "; ".join((*self.setup, self.statement))


class Drawing:
    """Draws the arguments of one call.  Shapes and dtypes of drawn tensors are kept, so that later arguments fit."""

    def __init__(self, random: Random, target: Target) -> None:
        self.random, self.target = random, target
        self.setup: list[str] = []
        self.names = iter("xyzwvustqpabcdefgh")
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.dtypes: dict[str, str] = {}
        self.leaves: list[str] = []
        self.ints: dict[str, int] = {}  # integers drawn so far, by parameter
        self.shape: tuple[int, ...] = random.choice(SHAPES)
        self.dtype = random.choice(DTYPES) if random.random() < 0.6 else random.choice(FLOATING)
        self.is_special = random.random() < 0.15
        self.has_grad = random.random() < 0.5

    @property
    def is_in_place(self) -> bool:
        return self.target.kind == "method" and self.target.name.endswith("_")

    def chance(self, probability: float) -> bool:
        return self.random.random() < probability

    # ---- values -----------------------------------------------------------------------------------------------------

    def value(self, dtype: str, kind: str = "") -> str:
        random = self.random
        if dtype == "bool":
            return random.choice(("True", "False"))
        if kind == "probability":
            return random.choice(("0.0", "1.0", "0.25", "0.5")) if dtype in FLOATING else random.choice("01")
        if dtype in INTEGERS:
            low, limit = (0, LIMITS[dtype]) if dtype == "uint8" else (-LIMITS[dtype], LIMITS[dtype])
            if self.is_special and self.chance(0.3):
                return repr(random.choice((low, limit - 1, limit // 2 + 1)))
            return repr(random.randint(0 if dtype == "uint8" else -4, 5))
        if self.is_special and self.chance(0.4):
            choices = ("nan", "inf", "-inf", "-0.0", "0.0", repr(LARGEST[dtype]), repr(SMALLEST[dtype]), repr(-LARGEST[dtype]))
            return random.choice(choices)
        if self.chance(0.15) and dtype in ("float32", "float64"):
            return repr(round(random.gauss(0, 2), 3))
        return repr(random.randint(-24, 24) / 8)

    def nested(self, shape: tuple[int, ...], dtype: str, kind: str, values: tuple[str, ...]) -> str:
        if not shape:
            return self.random.choice(values) if values else self.value(dtype, kind)
        return "[" + ", ".join(self.nested(shape[1:], dtype, kind, values) for _ in range(shape[0])) + "]"

    def tensor(
        self, shape: tuple[int, ...], dtype: str, kind: str = "", values: tuple[str, ...] = (), is_plain: bool = False
    ) -> str:
        """Add a tensor to the set-up and return its name."""
        name = next(self.names)
        layout = self.random.choice(("transpose", "slice", "expand", "flip")) if not is_plain and self.chance(0.12) else ""
        made = shape
        if layout == "transpose" and len(shape) > 1:
            made = (*shape[:-2], shape[-1], shape[-2])
        elif layout == "slice" and shape:
            made = (*shape[:-1], 2 * shape[-1])
        elif layout == "expand" and len(shape) > 1:
            made = (1, *shape[1:])
        else:
            layout = ""
        text = f"torch.tensor({self.nested(made, dtype, kind, values)}, dtype=torch.{dtype})"
        if 0 in made:
            text = f"torch.zeros({made}, dtype=torch.{dtype})"
        requires_grad = self.has_grad and dtype in FLOATING and not is_plain and self.chance(0.8)
        if requires_grad:
            text += ".requires_grad_()"
            self.leaves.append(name)
        self.setup.append(f"{name} = {text}")
        if layout or (requires_grad and self.is_in_place and self.chance(0.7)):
            leaf, name = name, next(self.names)
            view = {
                "transpose": f"{leaf}.transpose(-1, -2)", "slice": f"{leaf}[..., ::2]", "": f"{leaf} * 1",
                "expand": f"{leaf}.expand({', '.join(map(str, shape))})",
            }[layout]  # fmt: skip
            self.setup.append(f"{name} = {view}")
        self.shapes[name], self.dtypes[name] = shape, dtype
        return name

    def indices(self, shape: tuple[int, ...], limit: int, dtype: str = "int64", low: int = 0) -> str:
        values = tuple(map(repr, range(low, limit))) or ("0",)
        if self.chance(0.03):
            values += (repr(limit), repr(-limit - 1))
        return self.tensor(shape, dtype, values=values, is_plain=True)

    def broadcastable(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """A shape that broadcasts with another one, as a rule."""
        if self.chance(0.5):
            return shape
        if self.chance(0.05):
            return self.random.choice(SHAPES)
        if self.chance(0.15):
            return (2, *shape) if len(shape) < 4 else shape
        return tuple(1 if self.chance(0.3) else n for n in shape[self.random.randint(0, len(shape)) :])

    def number(self, is_integer: bool = False) -> str:
        random = self.random
        if self.is_special and self.chance(0.4):
            return random.choice(("nan", "inf", "-inf", "1e30", "2**40", "-0.0", "300", "-1", "True"))
        if is_integer or self.chance(0.45):
            return repr(random.randint(-3, 4))
        if self.chance(0.08):
            return random.choice(("True", "False"))
        if self.chance(0.06):
            return random.choice(("np.float32(1.5)", "np.float64(-0.5)", "np.int64(2)", "torch.tensor(2)", "torch.tensor(0.5)"))
        return repr(random.randint(-12, 12) / 4)

    # ---- dimensions and sizes ---------------------------------------------------------------------------------------

    def dim(self, extra: int = 0) -> str:
        ndim = max(len(self.shape), 1) + extra
        value = self.random.randint(-ndim, ndim - 1)
        if self.chance(0.03):
            value = self.random.choice((ndim, -ndim - 1, 5))
        self.ints["dim"] = value
        return f"np.int64({value})" if self.chance(0.04) else repr(value)

    def dims(self) -> str:
        ndim = len(self.shape)
        if self.chance(0.35):
            return self.dim()
        count = self.random.randint(0, ndim)
        chosen = self.random.sample(range(ndim), count)
        items = [d - ndim if self.chance(0.3) else d for d in chosen]
        if items and self.chance(0.04):
            items.append(self.random.choice((items[0], ndim, -ndim - 1)))
        return self.sequence(items)

    def sequence(self, items: list[int]) -> str:
        return repr(items) if self.chance(0.35) else repr(tuple(items))

    def sizes(self, name: str) -> str:
        function, random = self.target.name, self.random
        if function in ("view", "reshape"):
            return self.sequence(self.factors(math.prod(self.shape)))
        if function in ("expand", "broadcast_to"):
            items = [random.randint(1, 3) if n == 1 else random.choice((n, n, -1)) for n in self.shape]
            return self.sequence([random.randint(1, 2) for _ in range(random.randint(0, 1))] + items)
        if function == "permute":
            items = random.sample(range(len(self.shape)), len(self.shape))
            return self.sequence([d - len(self.shape) if self.chance(0.3) else d for d in items])
        if function == "unflatten":
            dim = self.ints.get("dim", 0)
            size = self.shape[dim] if -len(self.shape) <= dim < len(self.shape) else 2
            return self.sequence(self.factors(size))
        if name in ("split_size", "split_size_or_sections", "split_sizes"):
            size = self.shape[0] if self.shape else 1
            first = random.randint(0, size)
            return self.sequence([first, size - first]) if self.chance(0.4) else repr(random.randint(1, 3))
        if name == "repeats":
            return self.sequence([random.randint(0, 2) for _ in range(len(self.shape) + random.randint(-1, 1))])
        if name == "pad":
            return self.sequence([random.randint(-1, 2) for _ in range(2 * random.randint(0, len(self.shape)))])
        return self.sequence(list(random.choice(SHAPES)))

    def factors(self, count: int) -> list[int]:
        items = []
        for factor in (2, 3):
            if count and count % factor == 0 and self.chance(0.5):
                items.append(factor)
                count //= factor
        items.append(count)
        self.random.shuffle(items)
        if self.chance(0.2):
            items.insert(self.random.randint(0, len(items)), 1)
        if self.chance(0.3) and items:
            items[self.random.randrange(len(items))] = -1
        if self.chance(0.04):
            items.append(self.random.choice((2, -1)))
        return items

    # ---- one argument -----------------------------------------------------------------------------------------------

    def argument(self, p: Parameter) -> str | None:
        """The source text of an argument; None to leave it out."""
        kind = p.type.split("(")[0].rstrip("?").split("[")[0] if p.type.startswith("Tensor") else p.type.rstrip("?")
        if p.type.endswith("?") and self.chance(0.15):
            return "None"
        if p.type.startswith("Tensor["):
            return self.tensors()
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
            return f"np.array({self.nested(self.shape, self.dtype, '', ())}, {'float32' if self.dtype == 'bfloat16' else self.dtype!r})"
        return self.anything(p.name)

    def anything(self, name: str) -> str:
        if name in DIM_NAMES:
            return self.dims()
        if name in ("split_size", "split_size_or_sections", "sizes"):
            return self.sizes(name)
        if name in ("keepdim", "retain_graph", "create_graph"):
            return self.random.choice(("True", "False"))
        if name in ("data", "obj"):
            array = f"np.array({self.nested(self.shape, self.dtype, '', ())}, '{'float32' if self.dtype == 'bfloat16' else self.dtype}')"
            values = self.nested(self.shape, self.dtype, "", ())
            return self.random.choice((values, values, array, self.tensor(self.shape, self.dtype), self.number()))
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
            "k": (0, size + 1), "chunks": (0 if self.chance(0.05) else 1, 4), "diagonal": (-3, 3), "decimals": (-2, 3), "n": (0, 4), "m": (0, 4),
            "high": (1, 9), "low": (-5, 0), "steps": (0, 6), "num_classes": (-1, 7), "ignore_index": (-1, 2), "split_size": (1, 3),
        }.get(name, (-2, 4))  # fmt: skip
        value = random.randint(low, high)
        self.ints[name] = value
        return f"np.int64({value})" if self.chance(0.03) else repr(value)

    def tensors(self) -> str:
        count, dim = self.random.randint(1, 3), self.random.randint(0, max(len(self.shape) - 1, 0))
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
        if name in ("self", "input", "tensor", "tensors") and (is_first or name == "input"):
            return self.first_tensor(function)
        if name in ("index", "indices") and function not in ("take",):
            return self.index_argument(function)
        if name in ("mask", "condition"):
            if is_first:
                return self.tensor(shape, "bool" if self.chance(0.95) else self.random.choice(DTYPES))
            return self.tensor(self.broadcastable(shape), "bool" if self.chance(0.95) else self.random.choice(DTYPES))
        if name in ("mat2", "vec2", "vec") or function in ("matmul", "bmm", "mm", "dot", "rmatmul", "imatmul", "mv", "outer"):
            return self.matrix(function)
        if function == "linear" and name in ("weight", "bias"):
            features = shape[-1] if shape else 2
            return self.tensor((2, features) if name == "weight" else (2,), self.dtype)
        if name == "target" and function in ("cross_entropy", "nll_loss"):
            return self.labels()
        if name == "weight" and function in ("cross_entropy", "nll_loss"):
            classes = shape[1] if len(shape) > 1 else (shape[0] if shape else 1)
            return self.tensor((classes,), self.dtype, kind="probability", is_plain=True)
        if name == "target":
            return self.tensor(shape if self.chance(0.9) else self.broadcastable(shape), self.other_dtype() if self.chance(0.2) else self.dtype, kind="probability" if "cross" in function else "")
        if name == "value":
            return self.tensor((), self.other_dtype())
        if name == "repeats":
            return self.tensor((), "int64", values=("0", "1", "2"), is_plain=True)
        return self.tensor(self.broadcastable(shape), self.other_dtype())

    def first_tensor(self, function: str) -> str:
        random = self.random
        if function in ("mm", "matmul", "rmatmul", "linear", "bmm", "dot") and self.chance(0.9):
            ndims = {"mm": (2,), "bmm": (3,), "dot": (1,), "linear": (1, 2, 3)}.get(function, (1, 2, 3))
            self.shape = random.choice([s for s in SHAPES if len(s) in ndims])
        if function in ("cross_entropy", "nll_loss", "linear", "binary_cross_entropy_with_logits") and self.chance(0.85):
            self.dtype = random.choice(FLOATING)
        if function == "cross_entropy" and self.chance(0.9):
            self.shape = random.choice([s for s in SHAPES if len(s) in (1, 2, 3)])
        if function == "bernoulli":
            return self.tensor(self.shape, self.dtype, kind="probability")
        if function == "one_hot" and self.chance(0.85):
            return self.indices(self.shape, 4)
        if function in ("view", "t", "mT", "is_contiguous") or self.target.kind != "functional":
            return self.tensor(self.shape, self.dtype)
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
        if function.startswith("index_"):
            return self.indices((self.random.randint(0, 3),) if self.chance(0.9) else (), size, dtype)
        chosen = [self.random.randint(0 if self.chance(0.05) else 1, max(n, 1)) if n else 0 for n in shape]
        if shape and size and self.chance(0.3):
            chosen[dim if -len(shape) <= dim < len(shape) else 0] = self.random.randint(1, 4)
        return self.indices(tuple(chosen), size, dtype)

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
                items.append(self.indices(self.random.choice(((), (2,), (2, 1), (1,), (0,))), n, self.random.choice(("int64", "int64", "int32", "uint8" if self.chance(0.1) else "int64"))))
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

    # ---- calls ------------------------------------------------------------------------------------------------------

    def operand(self) -> str:
        """The second operand of an operator."""
        if self.target.name.strip("_") in ("matmul", "rmatmul", "imatmul"):
            return self.matrix(self.target.name.strip("_"))
        if self.chance(0.35):
            return self.number()
        if self.chance(0.03):
            return self.random.choice(("None", "'q'", "[1, 2]", "np.array([1.0, 2.0])"))
        return self.tensor(self.broadcastable(self.shape), self.other_dtype())

    def operator(self) -> Call:
        name, template = self.target.name, OPERATORS[self.target.name]
        x = self.first_tensor(name.strip("_"))
        if name == "__contains__" and self.chance(0.5):
            return self.done(f"r = {self.value(self.dtype)} in {x}")
        if name == "__getitem__":
            return self.done(f"r = {x}[{self.index_expression()}]")
        if name == "__setitem__":
            if self.leaves and self.chance(0.7):
                y = next(self.names)
                self.setup.append(f"{y} = {x} * 1")
                x = y
            index = self.index_expression()
            value = self.number() if self.chance(0.5) else self.tensor(self.random.choice(((), (), (1,), (2,), self.shape[1:])), self.other_dtype())
            return self.done(f"{x}[{index}] = {value}; r = {x}")
        if len(template.split("y")) == 1 or name in ("__array__", "__deepcopy__"):
            if "deepcopy" in template or "asarray" in template:
                return self.done("r = " + template.replace("(x)", f"({x})"))
            return self.done("r = " + self._fill(template, x, ""))
        if name.startswith("__i") and "=" in template and name != "__invert__":
            if self.leaves and self.chance(0.7):
                z = next(self.names)
                self.setup.append(f"{z} = {x} * 1")
                x = z
            return self.done(f"{self._fill(template, x, self.operand())}; r = {x}")
        return self.done("r = " + self._fill(template, x, self.operand()))

    @staticmethod
    def _fill(template: str, x: str, y: str) -> str:
        words = {"x": x, "y": f"({y})" if y.startswith("-") else y}
        parts, word = [], ""
        for c in template + " ":
            if c.isalpha() or c == "_":
                word += c
            else:
                parts += [words.get(word, word), c]
                word = ""
        return "".join(parts).strip()

    def done(self, statement: str) -> Call:
        return Call(self.target, tuple(self.setup), statement, tuple(self.leaves))

    def call(self) -> Call:
        target = self.target
        if target.kind == "operator":
            return self.operator()
        if target.kind == "property":
            return self.done(f"r = {self.first_tensor(target.name)}.{target.name}")
        overloads = [o for o in target.overloads if not o.has_out]
        return self.spell(self.random.choice(overloads))

    def spell(self, overload: Overload) -> Call:
        """Choose and write the arguments of an overload."""
        chosen: list[tuple[Parameter, str]] = []
        for p in overload.parameters:
            if p.name == "out" or (p.default is not None and self.chance(0.5)):
                continue
            text = self.argument(p)
            if text is not None:
                chosen.append((p, text))
        if chosen and self.chance(0.1):
            i = self.random.randrange(len(chosen))
            if i or self.target.kind != "method":
                chosen[i] = (chosen[i][0], self.wrong())
        receiver = self.take_receiver(chosen)
        return self.done(f"r = {receiver}{self.target.name}({', '.join(self.written(overload.parameters, chosen))})")

    def take_receiver(self, chosen: list[tuple[Parameter, str]]) -> str:
        """What stands in front of the name: the module or the tensor, whose argument is taken out of ``chosen``."""
        if self.target.kind != "method":
            return {"function": "torch.", "functional": "torch.nn.functional."}[self.target.kind]
        i = next((i for i, (p, _) in enumerate(chosen) if p.name == "self"), 0)
        return f"{chosen.pop(i)[1]}."

    def keyword(self, p: Parameter) -> str:
        """The name of a parameter in Python."""
        return "input" if p.name == "self" and self.target.kind != "method" else p.name

    def written(self, parameters: tuple[Parameter, ...], chosen: list[tuple[Parameter, str]]) -> list[str]:
        """Positional and keyword arguments; a parameter behind one that is left out goes by keyword."""
        order = [p.name for p in parameters if not p.is_keyword_only and (self.target.kind != "method" or p.name != "self")]
        by_keyword, texts = self.random.choice((False, False, self.chance(0.4))), []
        if self.chance(0.05):
            by_keyword = True
        keyword_from = self.random.randint(0, len(chosen)) if self.chance(0.25) else len(chosen) + 1
        for i, (p, text) in enumerate(chosen):
            is_next = i < len(order) and order[i] == p.name
            if p.is_keyword_only or not is_next or (by_keyword and (i or self.chance(0.4))) or i >= keyword_from:
                keyword_from = min(keyword_from, i)
                name = self.keyword(p)
                name = NUMPY_NAMES.get(name, name) if self.chance(0.08) else name
                texts.append(f"{name}={text}")
            elif p.type.endswith("[]") and "Int" in p.type + "Int" and text.startswith(("[", "(")) and not p.type.startswith("Tensor") \
                    and len(chosen) == i + 1 and (self.target.kind == "method" or p.name == "size") and self.chance(0.5) and len(text) > 2:
                texts.append(text[1:-1].rstrip(","))
            else:
                texts.append(text)
        if self.chance(0.005):
            texts.append("unknown=1")
        return texts

    def wrong(self) -> str:
        """An argument of another kind, which is refused as a rule."""
        choices = (
            "None", "True", "1.5", "'q'", "7", "-7", "[]", "()", "[1, 2]", "np.int64(1)", "np.float32(0.5)", "(0, 0)", "2**70", "-1",
            "torch.tensor(1)", "torch.tensor(1.5)", "np.array([1.0])", "torch.float32", "1j", "nan",
        )  # fmt: skip
        return self.random.choice(choices)


def draw(random: Random, target: Target) -> Call:
    """Draw one call of ``target``."""
    return Drawing(random, target).call()


def with_out(call: Call, torch: Any, random: Random) -> Call | None:
    """The call with ``out=``: tensors like its result, or empty, or of another shape or dtype; None if PyTorch refuses the call."""
    result = run(call.text, torch).variables.get("r")
    results = result if isinstance(result, (tuple, list)) else (result,)
    if not all(map(is_tensor, results)) or not call.statement.endswith(")"):
        return None
    setup = []
    for name, tensor in zip("on", results):
        shape, dtype = tuple(tensor.shape), str(tensor.dtype)
        kind = random.random()
        if kind < 0.2:
            shape = (0,)
        elif kind < 0.3:
            shape = random.choice(SHAPES)
        if random.random() < 0.15:
            dtype = f"torch.{random.choice(DTYPES)}"
        setup.append(f"{name} = torch.zeros({shape}, dtype={dtype})")
    text = "o" if is_tensor(result) else "(o, n)"
    separator = "" if call.statement.endswith("(") else ", "
    return call._replace(setup=(*call.setup, *setup), statement=f"{call.statement[:-1]}{separator}out={text})")
