"""Random calls as lines of Python, which run with PyTorch and, after ``import gpunet as torch``, with gpunet."""

from __future__ import annotations

from random import Random
from typing import Any, NamedTuple

from tests.torch_calls.arguments import Arguments
from tests.torch_calls.outcome import crashes, is_tensor, run
from tests.torch_calls.schemas import Overload, Parameter
from tests.torch_calls.targets import OPERATORS, Target
from tests.torch_calls.values import DTYPES, NUMPY_NAMES, SHAPES


class Call(NamedTuple):
    """A call, and the statements that make its arguments."""

    target: Target
    setup: tuple[str, ...]
    statement: str  # sets r
    leaves: tuple[str, ...] = ()  # names of arguments that require grad

    @property
    def text(self) -> str:
        return "; ".join((*self.setup, self.statement))


class Drawing(Arguments):
    """Draws one call."""

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
            shape = self.random.choice(((), (), (1,), (2,), self.shape[1:]))
            value = self.number() if self.chance(0.5) else self.tensor(shape, self.other_dtype())
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
            name = chosen[i][0].name
            if not name.startswith("_") and (name != "self" or self.target.kind != "method"):
                chosen[i] = (chosen[i][0], self.wrong())
        receiver = self.take_receiver(chosen)
        return self.done(f"r = {receiver}{self.target.name}({', '.join(self.written(overload.parameters, chosen))})")

    def take_receiver(self, chosen: list[tuple[Parameter, str]]) -> str:
        """What stands in front of the name: the module or the tensor, whose argument is taken out of ``chosen``."""
        if self.target.kind != "method":
            is_functional = self.target.kind == "functional"
            return "torch.nn.functional." if is_functional else self.target.full_name.removesuffix(self.target.name)
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
            elif i + 1 == len(chosen) and self.can_be_spread(p, text) and self.chance(0.5):
                texts.append(text[1:-1].rstrip(","))
            else:
                texts.append(text)
        if self.chance(0.005):
            texts.append("unknown=1")
        return texts

    def can_be_spread(self, p: Parameter, text: str) -> bool:
        """Whether a sequence of integers can be written as f(2, 3) instead of f((2, 3))."""
        is_sequence = p.type.startswith(("int[", "SymInt[")) and text.startswith(("[", "(")) and len(text) > 2
        return is_sequence and (self.target.kind == "method" or p.name == "size")

    def wrong(self) -> str:
        """An argument of another kind, which is refused as a rule."""
        choices = (
            "None", "True", "1.5", "'q'", "7", "-7", "[]", "()", "[1, 2]", "np.int64(1)", "np.float32(0.5)", "(0, 0)", "2**70",
            "-1", "torch.tensor(1)", "torch.tensor(1.5)", "np.array([1.0])", "torch.float32", "1j", "nan",
        )  # fmt: skip
        return self.random.choice(choices)


def draw(random: Random, target: Target) -> Call:
    """Draw one call of ``target``."""
    return Drawing(random, target).call()


def with_out(call: Call, torch: Any, random: Random) -> Call | None:
    """The call with ``out=``: tensors like its result, empty, or of another shape or dtype; None if PyTorch refuses the call."""
    if crashes(call.text):
        return None
    result = run(call.text, torch).variables.get("r")
    results = result if isinstance(result, (tuple, list)) else (result,)
    if not all(map(is_tensor, results)) or not call.statement.endswith(")"):
        return None
    setup, names = [], "onm"[: len(results)]
    for name, tensor in zip(names, results):
        shape, dtype = tuple(tensor.shape), str(tensor.dtype)
        if dtype.startswith("torch.complex") or len(results) > 3:
            return None
        kind = random.random()
        if kind < 0.2:
            shape = (0,)
        elif kind < 0.3:
            shape = random.choice(SHAPES)
        if random.random() < 0.15:
            dtype = f"torch.{random.choice(DTYPES)}"
        setup.append(f"{name} = torch.zeros({shape}, dtype={dtype})")
    text = "o" if is_tensor(result) else f"({', '.join(names)},)"
    separator = "" if call.statement.endswith("(") else ", "
    return call._replace(setup=(*call.setup, *setup), statement=f"{call.statement[:-1]}{separator}out={text})")
