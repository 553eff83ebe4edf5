"""The mutation test of the CUDA kernels: its operators, the known survivors, and a sample of its mutants.

``python -m tests.mutation`` runs all mutants.
"""

from __future__ import annotations

import pytest

from gpunet import emulator
from tests.mutation import __main__ as command
from tests.mutation.judge import all_mutants, cases_for, files, text
from tests.mutation.operators import OPERATORS, mutants
from tests.mutation.survivors import EQUIVALENT, SURVIVORS

needs_compiler = pytest.mark.skipif(not emulator.available(), reason="g++ is not installed")

NUM_SAMPLED = 28  # mutants that a run of the tests executes

#: operator -> (code, the expected mutants as (text, replacement) of the code)
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
    "guard": (
        "if (f(a, b)) x = 1; else if constexpr (c()) x = 2;",
        [("f(a, b)", "true"), ("f(a, b)", "false"), ("c()", "true"), ("c()", "false")],
    ),
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
    "alignment": (
        "int w = access_width(n, a, b[j]); w = access_width(0, a);",
        [("n, a", "0, a"), (", a, b", ", b"), (", b[j]", ""), ("(0, a)", "(0)")],
    ),
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


def test_struct_with_a_base_class_has_its_own_name() -> None:
    code = "struct Largest : Sum {\n  static bool combine(int a, int b) { return a > b; }\n};\n"
    assert {m.declaration for m in mutants("planted.cu", code)} == {"Largest::combine"}


def test_every_operator_has_mutants() -> None:
    assert {m.operator for m in all_mutants()} == set(OPERATORS)
    assert {m.file for m in all_mutants()} == set(files()) - {"common/loss.cuh"}  # with nothing to mutate


def test_names_are_unique_and_line_numbers_are_kept() -> None:
    everything = all_mutants()
    assert len({m.name for m in everything}) == len(everything)
    for mutant in everything:
        before, after = text(mutant.file).split("\n"), mutant.apply(text(mutant.file)).split("\n")
        assert len(before) >= len(after) > len(before) - 3 and before != after, mutant.name


def test_every_mutant_has_cases() -> None:
    without_cases = [m.name for m in all_mutants() if next(cases_for(m), None) is None]
    assert without_cases == [], "no case in gpunet/ops/cases uses the code that these mutants change"


def test_survivors_still_exist() -> None:
    names = {m.name for m in all_mutants()}
    assert [name for name in SURVIVORS if name not in names] == [], "survivors.txt lists mutants that do not exist"
    assert all(len(reason) > 20 for reason in SURVIVORS.values())
    assert len(SURVIVORS) - len(EQUIVALENT) < (len(names) - len(EQUIVALENT)) / 50, "fewer than 98 % are caught"


@pytest.mark.exhaustive
@needs_compiler
def test_sample_is_caught(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--sample", str(NUM_SAMPLED), "-q"]) == 0, capsys.readouterr().out
    assert f"{NUM_SAMPLED} of {NUM_SAMPLED} mutants caught (100.0 %)" in capsys.readouterr().out


@needs_compiler
@pytest.mark.exhaustive
def test_unexpected_verdict_is_an_error(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    slower = "common/gradients.cuh *start < table.counts[[]tensor] -> start <= table.counts[[]tensor]"
    wrong = "special.cu *e < 4 -> e + 1 < 4"
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
