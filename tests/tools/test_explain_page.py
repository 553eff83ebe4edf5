"""``gpunet explain --html``: the numbers of the page's JavaScript beside the engine's, and the page in a browser.

Node.js runs the JavaScript that computes.  The page itself runs in a browser through Playwright; GPUNET_BROWSER is the path of a
Chromium that Playwright has not installed itself.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gpunet.cli.main import main
from gpunet.errors import ArgumentError
from gpunet.tools import explain_page
from gpunet.tools.derivation_text import _value
from gpunet.tools.explain import Options, explain
from gpunet.tools.explain import _parts as parts_of
from gpunet.tools.textbook import TEXTBOOK_ACTIVATIONS

needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="Node.js is not installed")
NETS = (
    Options(),
    Options(layers="2,3,2", activation="tanh,sigmoid", input="1,-0.5;0.3,2;-1,0", target="1,0;0,1;0.5,0.5", seed=3),
    Options(layers="3,4,4,1", activation="gelu", seed=1),
    Options(layers="1,1,1,1,1", activation="relu", seed=2, input="2;-3"),
)


def page(options: Options) -> str:
    return explain_page.render_page(parts_of(options), float(options.lr), options.precision)


def script(text: str, identity: str) -> str:
    found = re.search(rf'<script id="{identity}"[^>]*>(.*?)</script>', text, re.DOTALL)
    assert found is not None
    return found[1]


def run_script(text: str, code: str) -> Any:
    """Run code behind the script that computes; ``DATA`` is the data of the page."""
    program = f"{script(text, 'model')}\nconst DATA = {script(text, 'data')};\n{code}"
    done = subprocess.run(["node", "-"], input=program, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


# ---- the JavaScript that computes -------------------------------------------------------------------------------------


@needs_node
@pytest.mark.parametrize("digits", [1, 3, 6, 15])
def test_numbers_have_the_digits_that_the_command_prints(digits: int) -> None:
    values = [0.0, 0.35, 1 / 3, -1234.56789, 999999.4, 1e6, -2.5e7, 0.1, 0.099, -1.23456e-4, 9.87e-5, 3e-12, 0.5]
    texts = run_script(page(Options()), f"console.log(JSON.stringify({values}.map(value => shown(value, {digits}))))")
    printed = [_value(value, digits) for value in values]
    assert [float(text.replace("−", "-")) for text in texts] == [float(text) for text in printed]
    assert [("e" in text) for text in texts] == [("e" in text) for text in printed]


@needs_node
@pytest.mark.parametrize("options", NETS, ids=lambda options: options.layers or "examples")
def test_all_numbers_are_the_engines(options: Options) -> None:
    text = page(options)
    assert run_script(text, "console.log(JSON.stringify(DATA.nets.flatMap(disagreements)))") == []
    changed = "DATA.nets.forEach(net => { net.layers[0].w[0][0] += 1e-6; });"
    assert run_script(text, f"{changed} console.log(JSON.stringify(DATA.nets.map(net => disagreements(net).length > 0)))")[0]


@needs_node
def test_activations_are_the_textbooks() -> None:
    points = [-30.0, -7.0, -3.0, -1.3, -0.5, -0.2, 0.0, 0.2, 0.5, 1.0, 2.5, 3.0, 6.5, 30.0]
    code = f"""const points = {json.dumps(points)};
        console.log(JSON.stringify(Object.fromEntries(Object.entries(ACTIVATIONS).map(([name, [value, slope]]) =>
          [name, points.map(z => [value(z), slope(z)])]))));"""
    found = run_script(page(Options()), code)
    assert set(found) == set(TEXTBOOK_ACTIVATIONS)
    for name, row in TEXTBOOK_ACTIVATIONS.items():
        for z, (value, slope) in zip(points, found[name]):
            assert math.isclose(value, row.value(z), rel_tol=1e-12, abs_tol=1e-14), (name, z)
            assert math.isclose(slope, row.slope(z), rel_tol=1e-12, abs_tol=1e-14), (name, z)


@needs_node
def test_steps_name_formulas_links_and_sums() -> None:
    code = """const write = part => Array.isArray(part) ? (part[2] ? `<${part[0]}>` : part[0]) : part;
        const read = formula => formula.map(write).join("");
        console.log(JSON.stringify(DATA.nets.map(net => stepsOf(net).steps.map(step =>
          [step.phase, step.name, read(step.formula), step.text, step.chain ? read(step.chain) : ""]))));"""
    chain, net = run_script(page(Options()), code)
    assert [step[0] for step in chain] == ["forward"] * 7 + ["backward"] * 15 + ["descent"] * 6
    assert chain[0][1:3] == ["z1", "w1·x + b1"] and chain[6][1:3] == ["C", "(a3 − y)²"]
    by_name = {step[1]: step for step in chain}
    assert by_name["∂C/∂z2"][2] == "∂C/∂a2·<∂a2/∂z2>" and by_name["∂C/∂a2"][2] == "∂C/∂z3·<w3>"
    assert by_name["∂C/∂w1"][4] == "2·(a3 − y)·σ'(z3)·w3·σ'(z2)·w2·σ'(z1)·<x>"
    assert by_name["new w1"][2] == "w1 − η·∂C/∂w1"
    sums = {step[1]: step for step in net}
    assert sums["∂C1/∂a1"][2] == "∂C1/∂z2[1]·<w2[1]> + ∂C1/∂z2[2]·<w2[2]>" and "used 2 times" in sums["∂C1/∂a1"][3]
    assert sums["∂C/∂w1[1]"][2] == "(∂C1/∂w1[1] + ∂C2/∂w1[1])/2"


@needs_node
def test_a_step_of_the_page_is_gradient_descent() -> None:
    code = """const net = DATA.nets[1], costs = [];
        for (let i = 0; i < 50; i++) { const { found } = stepsOf(net); costs.push(found.cost); net.layers = found.after; }
        console.log(JSON.stringify(costs));"""
    costs = run_script(page(Options()), code)
    assert all(after < before for before, after in itertools.pairwise(costs))


# ---- the file ---------------------------------------------------------------------------------------------------------


def test_the_page_is_self_contained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["explain", "--html", "--weights", "0.5,2"]) == 0
    assert capsys.readouterr().out == "wrote explain.html; open it in a browser\n"
    text = Path("explain.html").read_text(encoding="utf-8")
    assert not re.findall(r'(?:src|href)=|url\(|@import|https?://(?!www\.w3\.org/2000/svg)', text)
    assert main(["explain", "--html", "other.html"]) == 0
    nets = json.loads(script(Path("other.html").read_text(encoding="utf-8"), "data"))["nets"]
    assert [net["title"] for net in nets] == ["A chain of three neurons", "A neuron that feeds two others, and two samples"]
    with pytest.raises(ArgumentError, match=r"--html none/a\.html: cannot write it: No such file"):
        explain(Options(html="none/a.html"))


def test_titles_cannot_end_the_script() -> None:
    [part, _] = parts_of(Options())
    text = explain_page.render_page([part._replace(title="</script><b>")], 0.5, 6)
    assert json.loads(script(text, "data"))["nets"][0]["title"] == "</script><b>"


# ---- in a browser -----------------------------------------------------------------------------------------------------


@pytest.fixture
def browser_page(tmp_path: Path) -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as started:
        try:
            arguments = ["--no-sandbox", "--disable-gpu", "--no-zygote"]
            browser = started.chromium.launch(executable_path=os.environ.get("GPUNET_BROWSER"), args=arguments)
        except playwright.Error as error:
            pytest.skip(f"no browser: {str(error).splitlines()[0]}")
        path = tmp_path / "page.html"
        path.write_text(page(Options()), encoding="utf-8")
        (tmp_path / "large.html").write_text(page(Options(layers="4,6,5,2", seed=1)), encoding="utf-8")
        shown = browser.new_page(viewport={"width": 1200, "height": 900})
        errors: list[str] = []
        shown.on("pageerror", lambda error: errors.append(str(error)))
        shown.goto(path.as_uri())
        yield shown
        assert errors == []
        browser.close()


def weights(shown: Any) -> Any:
    return shown.evaluate("JSON.parse(JSON.stringify(state.net.layers))")


def text_of(shown: Any, identity: str) -> str:
    return str(shown.inner_text(f"#{identity}"))


def test_arrow_keys_buttons_and_step(browser_page: Any) -> None:
    shown = browser_page
    assert text_of(shown, "check").startswith("✓ All numbers that this page computes agree with the engine")
    shown.keyboard.press("ArrowRight")
    assert text_of(shown, "symbols") == "z1 = w1·x + b1" and text_of(shown, "numbers") == "= 0.5·0.5 + 0.1 = 0.35"
    assert "z 0.35" in shown.text_content("#drawing")
    shown.keyboard.press("ArrowLeft")
    assert "z 0.35" not in shown.text_content("#drawing") and shown.is_disabled("#step")
    before = weights(shown)
    shown.click("#forward")
    assert text_of(shown, "symbols") == "C = (a3 − y)²" and shown.is_disabled("#step")
    shown.click("#backward")
    assert weights(shown) == before and not shown.is_disabled("#step") and "∂" in shown.text_content("#drawing")
    shown.keyboard.press("ArrowRight")  # a step of gradient descent, which is only shown
    assert text_of(shown, "symbols").startswith("new ") and weights(shown) == before
    assert "z 0.35" in shown.text_content("#drawing") and "∂C/∂z" in shown.text_content("#drawing")
    shown.click("#step")
    after = weights(shown)
    assert after != before and text_of(shown, "note").startswith("Step 1: C went from 0.131369 to 0.")
    assert after[0]["w"][0][0] == pytest.approx(shown.evaluate("DATA.nets[0].engine.w[0][0][0]"), rel=1e-12)
    shown.click("#reset")
    assert weights(shown) == before


def test_the_marked_link_and_the_whole_chain(browser_page: Any) -> None:
    shown = browser_page
    at = shown.evaluate("state.computed.steps.findIndex(step => step.name === '∂C/∂w1')")
    for _ in range(at + 1):
        shown.keyboard.press("ArrowRight")
    assert text_of(shown, "symbols") == "∂C/∂w1 = ∂C/∂z1·x" and shown.text_content("#symbols mark") == "x"
    assert text_of(shown, "chain").startswith("whole chain: 2·(a3 − y)·σ'(z3)·w3·σ'(z2)·w2·σ'(z1)·x = 2·(0.637551 − 1)·")
    shown.select_option("#choice", "1")
    at = shown.evaluate("state.computed.steps.findIndex(step => step.name === '∂C1/∂a1')")
    for _ in range(at + 1):
        shown.click("#next")
    assert shown.locator("#symbols mark").all_inner_texts() == ["w2[1]", "w2[2]"] and "used 2 times" in text_of(shown, "text")
    assert shown.locator("#drawing line.active").count() == 2


def test_a_dragged_weight_recomputes_all(browser_page: Any) -> None:
    shown = browser_page
    shown.click("#backward")
    gradient = shown.evaluate("state.computed.found.byW[0][0][0]")
    box = shown.locator('[data-parameter="w 2 0 0"]').bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    shown.mouse.move(x, y)
    shown.mouse.down()
    shown.mouse.move(x + 37, y, steps=5)
    shown.mouse.up()
    assert weights(shown)[1]["w"][0][0] == pytest.approx(-1.2 + 0.37, abs=1e-9)
    assert shown.evaluate("state.computed.found.byW[0][0][0]") != gradient and "w2 −0.83" in shown.text_content("#drawing")
    shown.mouse.move(x + 90, y)
    assert weights(shown)[1]["w"][0][0] == pytest.approx(-0.83, abs=1e-9)
    shown.keyboard.press("ArrowUp")
    assert weights(shown)[1]["w"][0][0] == pytest.approx(-0.82, abs=1e-9)


def test_edges_of_a_large_network_show_their_weights_under_the_pointer(browser_page: Any) -> None:
    shown = browser_page
    shown.goto(shown.url.replace("page.html", "large.html"))
    assert shown.locator('[data-parameter^="w "]').count() == 0
    shown.dispatch_event('[data-edge="2 4 1"]', "pointerenter")
    assert shown.locator('[data-parameter^="w "]').count() == 1 and "w2[5,2] " in shown.text_content("#drawing")
    shown.locator('[data-parameter="w 2 4 1"]').focus()
    before = weights(shown)[1]["w"][4][1]
    shown.keyboard.press("ArrowDown")
    assert weights(shown)[1]["w"][4][1] == pytest.approx(before - 0.01)


def test_at_the_width_of_a_phone(browser_page: Any) -> None:
    browser_page.set_viewport_size({"width": 360, "height": 740})
    browser_page.click("#backward")
    assert browser_page.evaluate("document.documentElement.scrollWidth") <= 360
