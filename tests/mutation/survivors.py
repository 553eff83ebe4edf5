"""The mutants that are known to survive: ``survivors.txt`` names them below the reason that they share.

Most are equivalent: no run can tell them from the kernel.  Those below a reason that begins with "Missed" are not.
"""

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
SURVIVORS = _read(Path(__file__).with_name("survivors.txt"))
EQUIVALENT = {name: reason for name, reason in SURVIVORS.items() if not reason.startswith("Missed")}
