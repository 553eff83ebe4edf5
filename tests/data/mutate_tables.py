"""Damage CSV, Parquet, NumPy and TOML files at random, and read them: ``python -m tests.data.mutate_tables parquet --count 10000``.

Each file must be read, or refused by an error that names it.  The longest time and the memory are printed.
"""

from __future__ import annotations

import argparse
import io
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy

from gpunet.data import load
from gpunet.errors import ArgumentError, DataError
from gpunet.tools.training_options import combined
from tests import damage
from tests.damage import Random

SMALL = "id,when,flag,colour,price,y\n" + "".join(
    f'{i},2020-01-{i % 28 + 1:02},{"yes" if i % 2 else "no"},{("red", "blue")[i % 2]},"1,{i:03}.5",{i * 0.5 if i % 7 else ""}\n'
    for i in range(60)
)
CSV = (
    SMALL, SMALL.replace('"', "").replace("1,", "1 ").replace(",", ";"), "# a comment\n# x y z\n1 2 3\n4 5 6\n7 8 3\n",
    "a\tb\n" + "".join(f"{i % 4}%\t{'uv'[i % 2]}\n" for i in range(30)), "x,y\n1.234,5\n12.500,6\n999,5\n,6\n",
)  # fmt: skip
TOML = (
    'data = "digits"\nbatch-size = 64\nlr = 0.01\nhidden = "128,64"\nignore = ["a", "b"]\nreport = true\n',
    'data = "x.csv"\ntarget = "y"\nepochs = 3\nclip = 1.5\nseed = 7\n# a comment\nweight-decay = 1e-3\n',
)


def parquet_files() -> list[bytes]:
    """Files of several types of columns, codecs and row groups."""
    import pyarrow
    from pyarrow.parquet import write_table

    table = pyarrow.table({
        "number": [i * 0.5 if i % 5 else None for i in range(90)], "count": [*range(90)], "flag": [i % 3 == 0 for i in range(90)],
        "when": pyarrow.array(range(90), pyarrow.timestamp("ms")), "colour": [["red", "blue", "green"][i % 3] for i in range(90)],
        "parts": [[i, i + 1] for i in range(90)], "y": [i % 4 for i in range(90)],
    })  # fmt: skip
    files = []
    forms = ("snappy", 90, {}), ("none", 40, {"data_page_version": "2.0"}), ("zstd", 30, {"use_dictionary": False})
    for codec, groups, options in forms:
        content = io.BytesIO()
        write_table(table, content, compression=codec, row_group_size=groups, **options)
        files.append(content.getvalue())
    return files


def npz_files() -> list[bytes]:
    """Files of NumPy, with and without compression."""
    files = []
    for write in (numpy.savez, numpy.savez_compressed):
        content = io.BytesIO()
        write(content, x=numpy.arange(60.0).reshape(20, 3), y=numpy.arange(20) % 3)
        files.append(content.getvalue())
    return files


def texts(content: bytearray, r: Random) -> None:
    """Cells, delimiters and lines that are strange, or stand at another place."""
    strange = (
        b",", b";", b'"', b"\n", b"\r", b"\t", b"#", b"\0", b"=", b"[", b"{", b"9" * 400, b"1e999", b"-nan", b"inf", b"'''", b'"""',
        b"$1", b"1" * 5000, b"x" * 200_000, "\u2028".encode(), "\U0001F600".encode(), b"\xff", b"2020-13-45", b"0x10", b"1_0",
        b"," * 3000, b"[" * 5000, b"{a=" * 3000,
    )  # fmt: skip
    for _ in range(int(r.integers(1, 4))):
        at = int(r.integers(len(content) + 1))
        content[at : at + int(r.integers(0, 4))] = strange[r.integers(len(strange))]


def lines(content: bytearray, r: Random) -> None:
    """Lines in another order, some twice."""
    found = bytes(content).splitlines(keepends=True)
    content[:] = b"".join(found[i] for i in r.integers(len(found), size=len(found)))


BINARY = {"parquet": parquet_files, "npz": npz_files}
KINDS = ("csv", "toml", *BINARY)


def mutated(kind: str, count: int, seed: int) -> Iterator[bytes]:
    """Damaged files."""
    if kind in BINARY:
        return damage.mutated(BINARY[kind](), count, seed, damage.OF_BYTES)
    files = [text.encode() for text in (CSV if kind == "csv" else TOML)]
    return damage.mutated(files, count, seed, (*damage.OF_BYTES, texts, texts, lines))


def read(kind: str, path: Path, content: bytes) -> str:
    """Read a file; return what happened."""
    path.write_bytes(content)
    try:
        combined({}, str(path)) if kind == "toml" else load(path)
    except (ArgumentError, DataError) as error:
        text = str(error)
    else:
        return "read"
    assert str(path) in text, f"the error does not name the file: {text}"
    assert len(text) < 4000, f"an error of {len(text)} characters"
    return "refused"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    numpy.seterr(all="ignore")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"file.{arguments.kind}")
        contents = mutated(arguments.kind, arguments.count, arguments.seed)
        print(damage.measured(lambda content: read(arguments.kind, path, content), contents))


if __name__ == "__main__":
    main()
