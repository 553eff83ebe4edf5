"""Names that a function of C may have."""

from __future__ import annotations

import re
from typing import Any

from gpunet.errors import ArgumentError

_KEYWORDS = frozenset((
    "auto", "break", "case", "char", "const", "continue", "default", "do", "double", "else", "enum", "extern", "float", "for",
    "goto", "if", "inline", "int", "long", "main", "register", "restrict", "return", "short", "signed", "sizeof", "static",
    "struct", "switch", "typedef", "union", "unsigned", "void", "volatile", "while",
))  # fmt: skip
#: Functions of the C library, which compilers know.
_LIBRARY = frozenset((
    "abort", "abs", "atexit", "atof", "atoi", "atol", "atoll", "bsearch", "calloc", "clock", "div", "exit", "fclose", "fopen",
    "fprintf", "fputs", "free", "fscanf", "gamma", "getchar", "getenv", "gets", "imaxabs", "isalnum", "isalpha", "isblank",
    "iscntrl", "isdigit", "isfinite", "isgraph", "isgreater", "isgreaterequal", "isinf", "isless", "islessequal",
    "islessgreater", "islower", "isnan", "isnormal", "isprint", "ispunct", "isspace", "isunordered", "isupper", "isxdigit",
    "labs", "ldiv", "llabs", "lldiv", "longjmp", "malloc", "memchr", "memcmp", "memcpy", "memmove", "memset", "printf",
    "putchar", "puts", "qsort", "raise", "rand", "realloc", "remove", "rename", "scanf", "setjmp", "signal", "signbit",
    "fpclassify", "snprintf", "sprintf", "srand", "sscanf", "strcat", "strchr", "strcmp", "strcoll", "strcpy", "strcspn",
    "strerror", "strftime", "strlen", "strncat", "strncmp", "strncpy", "strpbrk", "strrchr", "strspn", "strstr", "strtod",
    "strtok", "strtol", "strtoul", "strxfrm", "system", "time", "tolower", "toupper", "vfprintf", "vprintf", "vsnprintf",
    "vsprintf",
    *(name + kind for kind in ("", "f", "l") for name in (
        "acos", "acosh", "asin", "asinh", "atan", "atan2", "atanh", "cabs", "cbrt", "ceil", "copysign", "cos", "cosh", "erf",
        "erfc", "exp", "exp2", "expm1", "fabs", "fdim", "floor", "fma", "fmax", "fmin", "fmod", "frexp", "hypot", "ilogb",
        "ldexp", "lgamma", "llrint", "llround", "log", "log10", "log1p", "log2", "logb", "lrint", "lround", "modf", "nan",
        "nearbyint", "nextafter", "nexttoward", "pow", "remainder", "remquo", "rint", "round", "scalbln", "scalbn", "sin",
        "sinh", "sqrt", "tan", "tanh", "tgamma", "trunc",
    )),
))  # fmt: skip
#: What the compiler reserves, macros, and the tables of the file.
_TAKEN = re.compile(
    r"_[A-Z_]\w*|NAN|INFINITY|HUGE_VAL[FL]?|(M|FP|MATH)_\w+|[tpc]\d+(_\w*)?|float_t|double_t|[jy][01n]|scalb|signgam|significand",
    re.ASCII,
)


def check_name(name: Any) -> None:
    """Check the name of the exported function.

    Raises:
        ArgumentError: it is no identifier, or has another meaning in C or in the file.
    """
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z_]\w*", name, re.ASCII) or name in _KEYWORDS:
        raise ArgumentError(f"export_c: name={name!r}; expected an identifier of C")
    if name in _LIBRARY or _TAKEN.fullmatch(name):
        other = f"net_{name.strip('_').lower()}"
        raise ArgumentError(
            f"export_c: name={name!r} is a name of C's library or compiler, or of a table in the file; pass another one, such as "
            f"{other!r}"
        )
