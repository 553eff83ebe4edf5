"""The mutants that are known to survive.  ``survivors.txt`` lists their names below the reason.

Most are equivalent to the kernel.  A reason that begins with "Missed" means that they are not, and no case detects
them.
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
