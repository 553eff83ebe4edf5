"""All layers of a recurrent network as one function, and single steps of its cells, as PyTorch has them at its top level."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from gpunet.autograd import Tensor, wrap
from gpunet.autograd.autocast import is_cast
from gpunet.backend.dtypes import is_floating, is_integer
from gpunet.errors import ArgumentError, DtypeError, ShapeError
from gpunet.ops.dropout import dropout as drop
from gpunet.ops.face import as_positive, as_probability, check_flag, named
from gpunet.ops.join import cat, stack, unbind
from gpunet.ops.recurrence import CELLS, run_direction

__all__ = ["gru", "gru_cell", "lstm", "lstm_cell", "rnn_relu", "rnn_relu_cell", "rnn_tanh", "rnn_tanh_cell"]


def run_layers(
    x: Tensor, batch_sizes: tuple[int, ...], states: Sequence[Sequence[Any]], weights: Sequence[Sequence[Any]], *, cell: str,
    has_biases: bool, num_directions: int, dropout: float,
) -> tuple[Tensor, list[Tensor]]:  # fmt: skip
    """Run the layers of a recurrent network.

    Args:
        x: (rows, features), packed: the elements of all sequences at step 0, then those at step 1, and so on.
        batch_sizes: the rows of each step, which are those of the first sequences.
        states: h, and c of an LSTM: for each direction of each layer (n, width), or None for 0.
        weights: for each direction of each layer w_ih and w_hh, b_ih and b_hh if it ``has_biases``, and w_hr if it projects.
        cell: a key of CELLS.
        dropout: the probability of dropout behind each layer but the last.

    Returns:
        The states h of the last layer at all steps (rows, directions width), and the last states, each (layers directions, n,
        width).
    """
    count = len(weights)
    firsts = [*states, *[(None,) * count] * (2 - len(states))]
    lasts: list[Sequence[Tensor]] = []
    outputs: list[Tensor] = []
    for number, given in enumerate(weights):
        layer, direction = divmod(number, num_directions)
        if not direction:
            x = drop(x, dropout) if layer and dropout else x
            outputs = []
        projection = given[-1] if len(given) % 2 else None
        b_ih, b_hh = given[2:4] if has_biases else (None, None)
        output, *last = run_direction(
            x, firsts[0][number], firsts[1][number], given[0], given[1], b_ih, b_hh, projection, cell=cell, batch_sizes=batch_sizes,
            reverse=direction == 1,
        )  # fmt: skip
        outputs.append(output)
        lasts.append(last)
        if direction + 1 == num_directions:
            x = outputs[0] if len(outputs) == 1 else cat(outputs, 1)
    finals = [last[0].reshape(1, *last[0].shape) if count == 1 else stack(last) for last in zip(*lasts)]
    return x, finals


# ---- the functions of PyTorch -----------------------------------------------------------------------------------------


def _states(name: str, hx: Any, has_cells: bool) -> list[Sequence[Tensor]]:
    given = hx if has_cells else [hx]
    if not isinstance(given, (tuple, list)) or len(given) != 1 + has_cells or not all(isinstance(s, Tensor) for s in given):
        expected = "a pair of tensors" if has_cells else "a tensor"
        raise ArgumentError(f"{name}: hx has type {type(hx).__name__}; expected {expected}")
    for state in given:
        if state.ndim != 3:
            raise ShapeError(f"{name}: a state has shape {tuple(state.shape)}; expected (layers * directions, n, features)")
    return [unbind(state, 0) for state in given]


def _layers(name: str) -> Callable[..., Any]:
    """The function ``name``, a key of CELLS."""
    cell = name

    def run(*args: Any, **named_arguments: Any) -> tuple[Tensor, ...]:
        order = _PACKED if _is_packed(args, named_arguments, CELLS[cell].has_cells) else _PADDED
        given = dict(zip(order, args)) | named_arguments
        if given.keys() != {*order} or len(args) + len(named_arguments) != len(order):
            raise ArgumentError(f"{name}: got {', '.join(sorted(given)) or 'nothing'}; expected {', '.join(order)}")
        return _run(name, cell, wrap(given[order[0]], name), given)

    doc = f"""The {cell.split("_")[0].upper()} layers ``params`` of a network: ``{name}({", ".join(_PADDED)})`` of sequences of one
    length, or ``{name}({", ".join(_PACKED)})`` of packed ones.

    Args:
        input, data: (steps, n, features), (n, steps, features) with ``batch_first``, or packed rows (rows, features).
        batch_sizes: the number of sequences at each step.
        hx: the first states (layers directions, n, width){", the pair (h, c)" if cell == "lstm" else ""}.
        params: for each direction of each layer w_ih, w_hh and, if it ``has_biases``, b_ih and b_hh.

    Returns:
        The states of the last layer at all steps, and the last states of all layers.

    Raises:
        ArgumentError, ShapeError: the arguments do not fit.
    """
    return named(run, name, doc)


_PADDED = ("input", "hx", "params", "has_biases", "num_layers", "dropout", "train", "bidirectional", "batch_first")
_PACKED = ("data", "batch_sizes", "hx", "params", "has_biases", "num_layers", "dropout", "train", "bidirectional")


def _check(name: str, cell: str, features: int, states: Sequence[Tensor], weights: Sequence[Any]) -> None:
    """Check one direction of a layer for an input of so many features.

    Args:
        states: h, and c of an LSTM, (n, width).
        weights: w_ih, w_hh, and perhaps biases and a projection.

    Raises:
        ShapeError, DtypeError: the shapes do not fit, or the dtypes differ or are not floating.
    """
    rows, first = CELLS[cell].gates * states[-1].shape[-1], weights[0]
    wanted: list[tuple[int, ...]] = [(rows, features), (rows, states[0].shape[-1])]
    wanted += [(rows,)] * 2 if len(weights) > 3 else []
    wanted += [(states[0].shape[-1], states[-1].shape[-1])] if len(weights) % 2 else []
    for key, weight, shape in zip(("w_ih", "w_hh", "b_ih", "b_hh", "w_hr"), weights, wanted):
        if weight is not None and tuple(weight.shape) != shape:
            raise ShapeError(f"{name}: {key} has shape {tuple(weight.shape)}; expected {shape} for {features} features of input")
    for x in (*states, *weights):
        if x is not None and not (is_floating(x.dtype) and (x.dtype == first.dtype or (is_cast(x) and is_cast(first)))):
            raise DtypeError(f"{name}: tensors of dtypes {x.dtype} and {first.dtype}; expected one floating dtype")


def _check_dtype(name: str, x: Tensor, weight: Any) -> None:
    if x.dtype != weight.dtype and not (is_cast(x) and is_cast(weight)):
        raise DtypeError(f"{name}: the input has dtype {x.dtype}; expected that of the weights, {weight.dtype}")


def _is_packed(args: Sequence[Any], named_arguments: dict[str, Any], has_cells: bool) -> bool:
    """Whether the arguments are those of packed sequences.

    Their second argument is a tensor, where an LSTM of sequences of one length has the pair of states, and their third one is,
    where the other cells have the list of weights.
    """
    if not named_arguments.keys().isdisjoint(("batch_sizes", "data")):
        return True
    position = 1 if has_cells else 2
    return isinstance(args[position], Tensor) if len(args) > position else len(args) == 2 and "hx" in named_arguments


def _step_sizes(name: str, batch_sizes: Any, rows: int) -> tuple[int, ...]:
    """The number of sequences at each step of packed rows."""
    given = wrap(batch_sizes, name)
    if not is_integer(given.dtype):
        raise DtypeError(f"{name}: batch_sizes has dtype {given.dtype}; expected integers")
    if given.ndim != 1:
        raise ShapeError(f"{name}: batch_sizes has shape {tuple(given.shape)}; expected one dimension")
    sizes = tuple(int(n) for n in given.tolist())
    if not sizes or sizes[-1] < 0 or list(sizes) != sorted(sizes, reverse=True) or sum(sizes) != rows:
        raise ShapeError(f"{name}: batch_sizes={list(sizes)} for {rows} rows; expected descending numbers that add up to them")
    return sizes


def _check_sequences(name: str, states: Sequence[Sequence[Tensor]], n: int) -> None:
    for state in states:
        if len(state[0]) != n:
            raise ShapeError(f"{name}: the states are those of {len(state[0])} sequences, the input has {n}")


def _run(name: str, cell: str, x: Tensor, given: dict[str, Any]) -> tuple[Tensor, ...]:
    for flag in ("has_biases", "train", "bidirectional", "batch_first"):
        check_flag(name, flag, given.get(flag, False))
    layers, directions = as_positive(name, "num_layers", given["num_layers"]), 1 + given["bidirectional"]
    if not isinstance(given["params"], (tuple, list)):
        raise DtypeError(f"{name}: params has type {type(given['params']).__name__}; expected a list of tensors")
    params, count = list(given["params"]), layers * directions
    size, rest = divmod(len(params), count)
    if rest or size not in ((4, 5) if given["has_biases"] else (2, 3)):
        raise ArgumentError(f"{name}: {len(params)} params for num_layers={layers}, {directions} directions; expected 2 or 4 each")
    if x.ndim != (2 if "batch_sizes" in given else 3):
        expected = "(rows, features)" if "batch_sizes" in given else "(steps, n, features)"
        raise ShapeError(f"{name}: the input has shape {tuple(x.shape)}; expected {expected}")
    weights = [[wrap(w, name) for w in params[n * size : (n + 1) * size]] for n in range(count)]
    states = _states(name, given["hx"], CELLS[cell].has_cells)
    if any(len(state) != count for state in states):
        raise ShapeError(f"{name}: hx has {len(states[0])} states; expected {count}, one for each direction of each layer")
    for number, layer in enumerate(weights):
        features = x.shape[-1] if number < directions else directions * states[0][0].shape[-1]
        _check(name, cell, features, [state[number] for state in states], layer)
        _check_dtype(name, x, layer[0])
    dropout = as_probability(name, "dropout", given["dropout"]) if given["train"] else 0.0
    options: dict[str, Any] = {
        "cell": cell, "has_biases": given["has_biases"], "num_directions": directions, "dropout": dropout
    }  # fmt: skip
    if "batch_sizes" in given:
        sizes = _step_sizes(name, given["batch_sizes"], len(x))
        _check_sequences(name, states, sizes[0])
        output, finals = run_layers(x, sizes, states, weights, **options)
        return output, *finals
    x = x.transpose(0, 1) if given["batch_first"] else x
    steps, n, features = x.shape
    _check_sequences(name, states, n)
    output, finals = run_layers(x.reshape(steps * n, features), (n,) * steps, states, weights, **options)
    output = output.reshape(steps, n, output.shape[1])
    return output.transpose(0, 1) if given["batch_first"] else output, *finals


def _step(cell: str) -> Callable[..., Any]:
    """The function of one step of a cell."""
    name = f"{cell}_cell"

    def step(input: Any, hx: Any, w_ih: Any, w_hh: Any, b_ih: Any = None, b_hh: Any = None) -> Any:
        x, has_cells = wrap(input, name), CELLS[cell].has_cells
        given = list(hx) if isinstance(hx, (tuple, list)) else [hx]
        if len(given) != 1 + has_cells:
            expected = "the pair (h, c)" if has_cells else "a tensor"
            raise ArgumentError(f"{name}: hx has type {type(hx).__name__}; expected {expected}")
        state = [wrap(s, name) for s in given]
        if x.ndim != 2 or any(s.ndim != 2 or len(s) != len(x) for s in state):
            shapes = ", ".join(str(tuple(t.shape)) for t in (x, *state))
            raise ShapeError(f"{name}: the input and the state have shapes {shapes}; expected (n, features), (n, width)")
        weights: list[Any] = [None if w is None else wrap(w, name) for w in (w_ih, w_hh, b_ih, b_hh)]
        _check(name, cell, x.shape[1], state, weights)
        _check_dtype(name, x, weights[0])
        biases = [weights[0].new_zeros(len(weights[0])) if b is None else b for b in weights[2:]]
        h, c = (*state, None)[:2]
        _, *found = run_direction(
            x, h, c, *weights[:2], *biases, cell=cell, batch_sizes=(len(x),), reverse=False
        )
        return tuple(found) if has_cells else found[0]

    kind = cell.split("_")[0].upper()
    doc = f"""One step of an {kind} of the input (n, features){": (h, c)" if cell == "lstm" else ""}.

    Args:
        hx: the state (n, width){", the pair (h, c)" if cell == "lstm" else ""}.
        w_ih, w_hh, b_ih, b_hh: (gates width, features), (gates width, width), and (gates width,) or None.

    Raises:
        ArgumentError, ShapeError: the arguments do not fit.
    """
    return named(step, name, doc)


gru, lstm, rnn_relu, rnn_tanh = (_layers(_cell) for _cell in ("gru", "lstm", "rnn_relu", "rnn_tanh"))
gru_cell, lstm_cell, rnn_relu_cell, rnn_tanh_cell = (_step(_cell) for _cell in ("gru", "lstm", "rnn_relu", "rnn_tanh"))
