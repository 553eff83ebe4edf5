"""The mutants that no run can tell from the kernel: ``equivalents.txt`` names them below the reason that they share."""

from __future__ import annotations

from pathlib import Path


def _read(path: Path) -> dict[str, str]:
    found: dict[str, str] = {}
    reason = ""
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith(" "):
            found[line.strip()] = reason
        elif line:
            reason = line
    return found


#: name -> reason
EQUIVALENT = _read(Path(__file__).with_name("equivalents.txt"))
