"""MkDocs hooks: formulas as MathML, which browsers show without a script, and docstrings without Sphinx's roles.

``pymdownx.arithmatex`` marks the formulas of a page, ``:func:`` and its like precede names in docstrings.
"""

from __future__ import annotations

import html
import re
from typing import Any

from latex2mathml.converter import convert

FORMULA = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)
ROLE = re.compile(r":(?:attr|class|data|exc|func|meth|mod):<code>~?")


def on_page_content(content: str, **_: Any) -> str:
    return FORMULA.sub(_as_mathml, ROLE.sub("<code>", content))


def _as_mathml(match: re.Match[str]) -> str:
    tag, formula = match.groups()
    mathml = convert(html.unescape(formula), display="block" if tag == "div" else "inline")
    return f'<{tag} class="formula">{mathml}</{tag}>'
