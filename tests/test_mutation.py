"""The mutation test of the CUDA kernels: its operators, its lists, and a sample of its mutants.

The whole run is ``python -m tests.mutation``.
"""

from __future__ import annotations

import pytest

from gpunet import emulator
from tests.mutation import __main__ as command
from tests.mutation.judge import all_mutants, cases_for, files, text
from tests.mutation.operators import OPERATORS, mutants
from tests.mutation.survivors import EQUIVALENT, SURVIVORS

needs_compiler = pytest.mark.skipif(not emulator.available(), reason="g++ is not installed")

#: How many mutants a run of the tests judges.
SAMPLE = 28

#: operator: (code, what becomes what, one after the other)
PLANTED = {
    "barrier": ("__syncthreads();  // always", [("__syncthreads();", ";")]),
    "fence": ("if (t) __threadfence();", [("__threadfence();", ";")]),
    "wait": (
        "async_wait<1>(); barrier_arrive(&s, 2); x = waits;",
        [("async_wait<1>();", ";"), ("barrier_arrive(&s, 2);", ";"), ("<1>", "<2>")],
    ),
    "atomic": (
        "last = atomicInc(t, n) == n;",
        [("atomicInc(t, n)", "[&] { auto* at = t; auto old = *at; *at = old >=  n ? 0 : old + 1; return old; }()")],
    ),
    "guard": ("if (f(a, b)) x = 1;", [("f(a, b)", "true"), ("f(a, b)", "false")]),
    "choice": (
        "x = a + b ? T(1) : c ? 2 : 3;",
        [("a + b", "true"), ("a + b", "false"), ("c", "true"), ("c", "false")],
    ),
    "operand": (
        "g(a && b(1, 2) || c && d, e);",
        [("a &&", ""), ("&& b(1, 2)", ""), ("a && b(1, 2) ||", ""), ("|| c && d", ""), ("c &&", ""), ("&& d", "")],
    ),
    "comparison": (
        "x = a < b; y = a >= b; z = a == b; f<int>(a);",
        [("<", "<="), ("<", "+ 1 <"), (">=", ">"), (">=", "+ 1 >="), ("==", "!=")],
    ),
    "boolean": (
        "const bool p = f(a, b) && c, q = true; bool r;",
        [("f(a, b) && c", "true"), ("f(a, b) && c", "false"), ("true", "false")],
    ),
    "clamp": ("x = min(f(a, b), n);", [("min(f(a, b), n)", "f(a, b)"), ("min(f(a, b), n)", "n")]),
    "loop": (
        "for (int i = t; i < n; i += d) for (int k = 8; k > 0; k /= 2) h ^= 1;",
        [("= t", "= t + 1"), ("+= d", "+= 2 * (d)"), ("= 8", "= (8) / 2"), ("/= 2", "/= 2 * (2)")],
    ),
    "offset": ("x = a[i + 1] - 1; y = -1 + 1.0f;", [(" + 1]", " ]"), ("- 1;", ";")]),
    "initial value": (
        "T a = T(0), b = c; int d = 0; const int e = 0;",
        [("= T(0)", ""), ("= 0", "")],
    ),
}


@pytest.mark.parametrize("operator", OPERATORS)
def test_operator(operator: str) -> None:
    code, expected = PLANTED[operator]
    before, after = "__global__ void planted(int n) {\n#pragma unroll  // if (a && b)\n  ", "\n}\n"
    whole = before + code + after
    found = [m for m in mutants("planted.cu", whole) if m.operator == operator]
    assert {m.declaration for m in found} == {"planted"} and {m.line for m in found} == {3}
    assert sorted(m.apply(whole) for m in found) == sorted(before + code.replace(*e, 1) + after for e in expected)


def test_a_struct_has_its_own_name_and_not_its_base_s() -> None:
    code = "struct Largest : Sum {\n  static bool combine(int a, int b) { return a > b; }\n};\n"
    assert {m.declaration for m in mutants("planted.cu", code)} == {"Largest::combine"}


def test_every_operator_finds_something() -> None:
    """But for waits: no kernel copies asynchronously yet."""
    assert {m.operator for m in all_mutants()} == set(OPERATORS) - {"wait"}
    assert {m.file for m in all_mutants()} == set(files())


def test_names_are_unique_and_lines_stay_in_place() -> None:
    everything = all_mutants()
    assert len({m.name for m in everything}) == len(everything)
    for mutant in everything:
        before, after = text(mutant.file).split("\n"), mutant.apply(text(mutant.file)).split("\n")
        assert len(before) >= len(after) > len(before) - 3 and before != after, mutant.name


def test_every_mutant_has_cases() -> None:
    lonely = [m.name for m in all_mutants() if next(cases_for(m), None) is None]
    assert lonely == [], "no case of gpunet/tools/kernel_cases.py uses what these change"


def test_survivors_still_exist() -> None:
    names = {m.name for m in all_mutants()}
    assert [name for name in SURVIVORS if name not in names] == [], "tests/mutation/survivors.txt names what is no mutant"
    assert all(len(reason) > 20 for reason in SURVIVORS.values())
    assert len(SURVIVORS) - len(EQUIVALENT) < (len(names) - len(EQUIVALENT)) / 50, "less than 98 % are caught"


@pytest.mark.exhaustive
@needs_compiler
def test_sample_is_caught(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--sample", str(SAMPLE), "-q"]) == 0, capsys.readouterr().out
    assert f"{SAMPLE} of {SAMPLE} mutants caught (100.0 %)" in capsys.readouterr().out


@needs_compiler
def test_what_nothing_notices_is_an_error(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    slower, wrong = "special.cu *whole = false", "special.cu *e < 4 -> e + 1 < 4"
    assert command.main(["--name", slower]) == 0
    assert "0 of 0" in capsys.readouterr().out
    assert command.main(["--name", slower, "--survivors"]) == 0
    monkeypatch.setattr(command, "SURVIVORS", {m.name: "" for m in all_mutants() if m.name.endswith("e < 4 -> e + 1 < 4")})
    assert command.main(["--name", slower]) == 1
    assert "! survived" in capsys.readouterr().out
    assert command.main(["--name", wrong]) == 0
    assert command.main(["--name", wrong, "--survivors"]) == 1
    assert "! values" in capsys.readouterr().out


def test_unknown_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--name", "conv.cu*"]) == 2
    assert "no mutant" in capsys.readouterr().err
    assert command.main(["--file", "common/pack.cuh", "--list"]) == 0
    assert "common/pack.cuh:" in capsys.readouterr().out
