"""Run a script or a notebook that is written for PyTorch, under gpunet's names."""

from __future__ import annotations

import ast
import builtins
import json
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

from gpunet.backend.launchers import export_launcher_variables
from gpunet.errors import ArgumentError
from gpunet.interop.torch_modules import torch_names

#: Environment variable with the script that runs.
SCRIPT_VARIABLE = "GPUNET_RUN_SCRIPT"


def run_script(path: str | Path, arguments: Sequence[str] = ()) -> None:
    """Run a script as ``python script arguments``, but ``torch`` and its submodules are gpunet's.

    Of a notebook (.ipynb) the cells with code are run in order, without lines of the shell and of IPython (``!`` and ``%``).
    Where ``mpiexec`` started the process, RANK, LOCAL_RANK and WORLD_SIZE are set, as by torchrun.

    Raises:
        ArgumentError: the file does not exist, or is neither a script nor a notebook.
        MissingNameError, MissingModuleError: the script uses a name of PyTorch that gpunet does not have.
    """
    script = Path(path)
    if not script.is_file():
        raise ArgumentError(f"run: no file {str(path)!r}; expected a Python script or a notebook")
    export_launcher_variables()
    with torch_names(), _as_main(script, arguments):
        if script.suffix == ".ipynb":
            _run_notebook(script)
        else:
            with _main_module(script) as main:
                # processes that it spawns import their main module by its name, and find the script by the variable
                main.__spec__ = ModuleSpec("gpunet.interop.spawned_script", None)
                before = os.environ.get(SCRIPT_VARIABLE)
                os.environ[SCRIPT_VARIABLE] = str(script.resolve())
                try:
                    run_file(script, main.__dict__)
                finally:
                    del os.environ[SCRIPT_VARIABLE]
                    os.environ.update({} if before is None else {SCRIPT_VARIABLE: before})


def run_file(script: Path, names: dict[str, Any]) -> None:
    """Run the code of a script in a module with these names."""
    names["__file__"] = str(script)
    exec(compile(script.read_bytes(), str(script), "exec"), names)


@contextmanager
def _as_main(script: Path, arguments: Sequence[str]) -> Iterator[None]:
    """Set the arguments and the path of imports as for ``python script arguments``."""
    argv, path = sys.argv, sys.path.copy()
    sys.argv = [str(script), *arguments]
    sys.path.insert(0, str(script.resolve().parent))
    try:
        yield
    finally:
        sys.argv, sys.path[:] = argv, path


def code_of_notebook(script: Path) -> list[str]:
    """The code of the cells of a notebook, where lines of the shell and of IPython are comments.

    Raises:
        ArgumentError: the file is no notebook.
    """
    try:
        cells = json.loads(script.read_text(encoding="utf-8"))["cells"]
        sources = [cell["source"] for cell in cells if cell["cell_type"] == "code"]
    except (ValueError, KeyError, TypeError):
        raise ArgumentError(f"run: {str(script)!r} is no notebook; expected a file of Jupyter, format 4") from None
    return [_python_of("".join(source)) for source in sources]


def _python_of(cell: str) -> str:
    """The code of a cell; if it is no Python, without the lines that are for the shell and for IPython."""
    try:
        ast.parse(cell)
    except SyntaxError:
        if cell.lstrip().startswith("%%"):  # the whole cell is for a command of IPython
            return "".join(f"# {line}\n" for line in cell.splitlines())
        indents = [line[: len(line) - len(line.lstrip())] for line in cell.splitlines()]
        lines = zip(indents, cell.splitlines())
        return "\n".join(f"{indent}pass  # {line}" if line.lstrip()[:1] in ("!", "%") else line for indent, line in lines)
    return cell


@contextmanager
def _main_module(script: Path) -> Iterator[ModuleType]:
    """A new module ``__main__``, in the place of that of the process."""
    main = ModuleType("__main__")
    main.__file__ = str(script)
    main.__dict__["__builtins__"] = builtins
    before, sys.modules["__main__"] = sys.modules["__main__"], main
    try:
        yield main
    finally:
        sys.modules["__main__"] = before


def _run_notebook(script: Path) -> None:
    with _main_module(script) as main:
        for number, source in enumerate(code_of_notebook(script), 1):
            exec(compile(source, f"{script.name}, cell {number}", "exec"), main.__dict__)


def traceback_of_script(error: BaseException, path: str | Path) -> str | None:
    """The text of a traceback from the script's own code on; None if the error is from before it ran."""
    own = (str(Path(path)), f"{Path(path).name}, cell ")
    at = error.__traceback__
    while at is not None and not at.tb_frame.f_code.co_filename.startswith(own):
        at = at.tb_next
    return None if at is None else "".join(traceback.format_exception(type(error), error, at))
