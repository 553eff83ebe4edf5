"""Random tensors, numbers, dimensions and sizes, as source text."""

from __future__ import annotations

import math
import re
from random import Random

import gpunet
from tests.torch_calls.fitting import FITTING, LAPACK, Shapes
from tests.torch_calls.targets import Target

FLOATING = ("float32", "float64", "float16", "bfloat16")
INTEGERS = ("int64", "int32", "int16", "int8", "uint8")
DTYPES = (*FLOATING, *INTEGERS, "bool")
#: Complex dtypes -> those of the parts.
COMPLEX = {"complex64": "float32", "complex128": "float64"}
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
    "reduce": ("sum", "prod", "mean", "amax", "amin", "add", "multiply"),
}  # fmt: skip
#: Parameters that name a dimension, and whether the dimension may lie one behind the last.
DIM_NAMES = {"dim", "dim0", "dim1", "axis0", "axis1", "start_dim", "end_dim", "dims", "source", "destination"}
NUMPY_NAMES = {"dim": "axis", "keepdim": "keepdims", "input": "x", "other": "x2"}
BACKENDS = ("Layout", "Device", "Generator", "MemoryFormat")

#: Functions that get ordinary numbers only; PyTorch ends the process for the smallest integer divided by -1.
NO_SPECIAL = ("fmod", "gcd", "lcm", *LAPACK)

#: Functions whose results have as many elements as their numbers say, or that take as many steps: large numbers would fill the
#: memory of both libraries, or keep them busy for hours.
GROW_WITH_NUMBERS = re.compile(r"arange|bincount|one_hot|range|\w+_polynomial_\w")

#: The dtypes that PyTorch takes, of functions that take few.
DTYPES_OF = {
    **dict.fromkeys(("linalg", "quantile", "nanquantile", *LAPACK), ("float32", "float64")),
    **dict.fromkeys(("imag", "istft", "view_as_real"), tuple(COMPLEX)),
    **dict.fromkeys(("bincount", "gcd", "lcm"), INTEGERS),
    **dict.fromkeys(("bitwise_left_shift", "lshift", "ilshift", "rlshift"), INTEGERS),
    **dict.fromkeys(("bitwise_right_shift", "rshift", "irshift", "rrshift"), INTEGERS),
}


def takes_complex(target: Target) -> bool:
    """Whether the function of gpunet takes complex tensors."""
    places = {"functional": gpunet.nn.functional, "linalg": gpunet.linalg, "method": gpunet.Tensor, "property": gpunet.Tensor}
    return bool(getattr(getattr(places.get(target.kind, gpunet), target.name, None), "takes_complex", False))


class Values:
    """Draws values for one call.  Shapes and dtypes of drawn tensors are kept, so that later arguments fit."""

    def __init__(self, random: Random, target: Target) -> None:
        self.random, self.target = random, target
        self.setup: list[str] = []
        self.names = iter("xyzwvustqpabcdefghijklmno")
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.dtypes: dict[str, str] = {}
        self.leaves: list[str] = []
        self.ints: dict[str, int] = {}  # integers drawn so far, by parameter
        self.words: dict[str, str] = {}  # words drawn so far, by parameter
        self.shape: tuple[int, ...] = random.choice(SHAPES)
        self.dtype = random.choice(DTYPES) if random.random() < 0.6 else random.choice(FLOATING)
        self.is_special = random.random() < 0.15 and target.kind != "linalg" and target.name.strip("_") not in NO_SPECIAL
        self.has_grad = random.random() < 0.5
        wanted = DTYPES_OF.get("linalg" if target.kind == "linalg" else target.name.strip("_"))
        if wanted and random.random() < 0.9:
            self.dtype = random.choice(wanted)
        elif takes_complex(target) and random.random() < 0.1:
            self.dtype = random.choice(tuple(COMPLEX))
        kinds = FITTING.get(target.name.strip("_"), ())
        self.fitting: Shapes = random.choice(kinds) if kinds else ()  # of the tensors that are still to be drawn

    @property
    def is_in_place(self) -> bool:
        return self.target.kind == "method" and self.target.name.endswith("_")

    @property
    def takes_large_numbers(self) -> bool:
        return GROW_WITH_NUMBERS.fullmatch(self.target.name) is None

    def chance(self, probability: float) -> bool:
        return self.random.random() < probability

    def value(self, dtype: str, kind: str = "") -> str:
        random = self.random
        if dtype in COMPLEX:
            return f"complex({self.value(COMPLEX[dtype])}, {self.value(COMPLEX[dtype])})"
        if dtype == "bool":
            return random.choice(("True", "False"))
        if kind == "probability":
            return random.choice(("0.0", "1.0", "0.25", "0.5")) if dtype in FLOATING else random.choice("01")
        if dtype in INTEGERS:
            low, limit = (0, LIMITS[dtype]) if dtype == "uint8" else (-LIMITS[dtype], LIMITS[dtype])
            if self.is_special and self.chance(0.3):
                return repr(random.choice((low, limit - 1, limit // 2 + 1) if self.takes_large_numbers else (low,)))
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

    def nested_of(self, shape: tuple[int, ...], values: list[str]) -> str:
        """Take the elements from the end of ``values``."""
        return "[" + ", ".join(self.nested_of(shape[1:], values) for _ in range(shape[0])) + "]" if shape else values.pop()

    def tensor(
        self, shape: tuple[int, ...], dtype: str, kind: str = "", values: tuple[str, ...] = (), is_plain: bool = False
    ) -> str:
        """Add a tensor to the set-up and return its name."""
        name = next(self.names)
        layout = self.random.choice(("transpose", "slice", "expand", "flip")) if not is_plain and self.chance(0.12) else ""
        layout = "" if layout == "expand" and kind == "distinct" else layout
        made = shape
        if layout == "transpose" and len(shape) > 1:
            made = (*shape[:-2], shape[-1], shape[-2])
        elif layout == "slice" and shape:
            made = (*shape[:-1], 2 * shape[-1])
        elif layout == "expand" and len(shape) > 1:
            made = (1, *shape[1:])
        else:
            layout = ""
        if kind == "distinct" and dtype != "bool":
            values = tuple(map(str, self.random.sample(range(24), math.prod(made))))
            literal = self.nested_of(made, list(values))
        else:
            literal = self.nested(made, dtype, kind, values)
        text = f"torch.tensor({literal}, dtype=torch.{dtype})"
        if 0 in made:
            text = f"torch.zeros({made}, dtype=torch.{dtype})"
        requires_grad = self.has_grad and (dtype in FLOATING or dtype in COMPLEX) and not is_plain and self.chance(0.8)
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
            large = ("1e30", "2**40") if self.takes_large_numbers else ()
            return random.choice(("nan", "inf", "-inf", *large, "-0.0", "300", "-1", "True"))
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
