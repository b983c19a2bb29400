"""The page about tensors: its data tells what happened, and a browser shows it."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from amdrv.cli import main
from amdrv.tensor import Tensor, jit
from amdrv.tensor.ir import Op, toposort
from amdrv.tensor.patterns import Rule, RuleSet, var
from amdrv.tensor.rewrite import Step, rewrite
from amdrv.tensor.viz import record, write, write_page
from amdrv.tensor.viz.collect import Graph, collect, history

BROWSER = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), ""
)
VIEWS = ("graph", "schedule", "memory", "kernels", "timeline")
A = np.random.default_rng(3).standard_normal((8, 64)).astype(np.float32)


def data_of(page: Path) -> dict[str, Any]:
    """The data in a page."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page.read_text(), re.DOTALL)
    assert found is not None
    shown: dict[str, Any] = json.loads(found.group(1))
    return shown


def at_end(graph: dict[str, Any]) -> dict[int, Any]:
    """The nodes after all steps, as the page makes them."""
    nodes = {int(number): row for number, row in graph["nodes"].items()}
    for step in graph["steps"]:
        for number in step["removed"]:
            del nodes[number]
        nodes |= {int(number): row for number, row in step["changed"].items()}
    return nodes


# -- data --------------------------------------------------------------------------------------------------------------


def test_the_steps_of_a_rewrite_lead_from_the_first_graph_to_the_last() -> None:
    x = Tensor(A, device="CPU")
    y = ((x * 1.0).reshape(64, 8).reshape(8, 64) - 0.0).softmax().permute(1, 0).permute(1, 0)
    trace: list[Step] = []
    drop = RuleSet([Rule("negate twice", var("x"), lambda x: x.src[0] if x.op is Op.RESHAPE else None)])
    last = rewrite(y.node, drop, trace)
    graph = Graph(y.node)
    told = history(graph, trace)
    assert trace and graph.root is last
    rows = at_end(json.loads(json.dumps(told)))
    assert sorted(row[0] for row in rows.values()) == sorted(str(node.op) for node in toposort([last]))
    assert all(source in rows for row in rows.values() for source in row[4])


def test_nodes_keep_their_numbers_when_only_their_sources_change() -> None:
    x = Tensor(A, device="CPU")
    y = (x.reshape(64, 8).reshape(8, 64).exp() + 1).log()
    drop = RuleSet([Rule("drop", var("x"), lambda x: x.src[0] if x.op is Op.RESHAPE and x.shape == (64, 8) else None)])
    trace: list[Step] = []
    rewrite(y.node, drop, trace)
    (step,) = history(Graph(y.node), trace)["steps"]
    assert [row[0] for row in step["changed"].values()] == ["reshape"]
    assert len(step["removed"]) == 1 and step["rules"] == ["drop"]


def test_every_kernel_tells_the_tensor_operations_and_the_lines_that_it_comes_from() -> None:
    with record() as found:
        x = Tensor(A, device="CPU")
        ((x * 2.0).detach().exp() * 1.0).realize()
    (plan,) = collect(found)["plans"]
    (step,) = plan["steps"]
    nodes = plan["graph"]["nodes"]
    assert sorted(nodes[number][0] for number in step["from"]) == ["detach", "exp", "mul", "mul"]
    lines = [plan["lines"][number] for number in step["from"]]
    assert all(line.startswith("test_viz.py:") for line in lines)
    assert {line.split()[1] for line in lines} == {"__mul__", "detach", "exp"}


def test_explain_names_the_tensor_operations_that_each_kernel_comes_from() -> None:
    x = Tensor(A, device="CPU")
    text = ((x * 2.0).detach().exp() * 1.0).contiguous().sum(0).explain(code=False)
    lines = [line for line in text.splitlines() if line.startswith("from the tensor graph: ")]
    names = [[part.split()[1] for part in line.partition(": ")[2].split(", ")] for line in lines]
    assert names[0] == ["mul", "detach", "exp", "mul", "contiguous"] and "reduce" in names[1]


def test_runs_are_counted_and_timed_and_plans_and_kernels_listed_once() -> None:
    with record() as found:
        for k in range(3):
            (Tensor(A + k, device="CPU") * 2 + 1).realize()
        float((Tensor(A, device="CPU") * 2 + 1).sum())  # looking is allowed
    shown = collect(found)
    first = shown["plans"][0]
    assert first["count"] == 3 and [len(run) for run in first["runs"]] == [1, 1, 1]
    assert all(start >= 0 and seconds > 0 for run in first["runs"] for start, seconds in run)
    assert len(shown["kernels"]) == len({step["kernel"] for plan in shown["plans"] for step in plan["steps"]})


def test_memory_shows_when_each_temporary_array_is_needed() -> None:
    with record() as found:
        x = Tensor(A, device="CPU")
        y = x
        for _ in range(4):
            y = (y + 1).contiguous()
        y.realize()
    (plan,) = collect(found)["plans"]
    memory = plan["memory"]["CPU"]
    assert [(first, last) for _, _, first, last in memory["arrays"]] == [(0, 1), (1, 2), (2, 3)]
    assert all(offset + size <= memory["bytes"] and size == A.nbytes for offset, size, _, _ in memory["arrays"])


@pytest.mark.parametrize(("device", "instruction"), [("CPU", "ret"), ("AMD", "s_endpgm")])
def test_kernels_have_their_ir_and_machine_code(device: str, instruction: str, tmp_path: Path) -> None:
    page = write(Tensor(A, device=device).softmax() + 1, tmp_path / "page.html")
    shown = data_of(page)
    assert shown["kernels"] and all(kernel["device"] == device for kernel in shown["kernels"])
    for kernel in shown["kernels"]:
        assert "define " in kernel["ir"] and instruction in kernel["code"]


def test_values_in_memory_show_how_they_were_made(tmp_path: Path) -> None:
    x = (Tensor(A, device="CPU") * 3).realize()
    (plan,) = data_of(write(x, tmp_path / "page.html"))["plans"]
    assert plan["steps"][0]["what"] == "mul" and plan["runs"] == []


def test_a_function_that_is_recorded_while_watched_shows_its_kernels_and_still_repeats() -> None:
    double = jit(lambda x: x * 2)
    with record() as found:
        results = [double(Tensor(A + k, device="CPU")).numpy() for k in range(4)]
    np.testing.assert_array_equal(results[3], (A + 3) * 2)
    assert collect(found)["plans"][0]["count"] == 2


def test_the_page_is_one_file_and_text_cannot_end_its_data(tmp_path: Path) -> None:
    with record() as found:
        (Tensor(A, device="CPU") + 1).realize()
    page = write_page(found, tmp_path / "page.html", "</script><b>&")
    text = page.read_text()
    assert data_of(page)["title"] == "</script><b>&"
    assert not re.search(r"""(src|href)=|url\(|@import|https?://(?!www\.w3\.org/2000/svg)""", text)


def test_the_command_runs_a_program_with_its_arguments(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script = tmp_path / "program.py"
    script.write_text(
        "import sys, helper\nfrom amdrv.tensor import Tensor\n"
        "print(sys.argv[1:], helper.double(Tensor([1.0, 2.0], device='CPU')).tolist())\n"
    )
    (tmp_path / "helper.py").write_text("def double(x):\n    return x * 2\n")
    page = tmp_path / "page.html"
    assert main(["viz", "-o", str(page), str(script), "one", "--two"]) == 0
    assert capsys.readouterr().out == "['one', '--two'] [2.0, 4.0]\n"
    shown = data_of(page)
    assert shown["title"] == "program.py" and shown["plans"][0]["made"] == "helper.py:2 __mul__"


def test_a_program_that_fails_gives_the_page_of_what_it_did_and_status_1(tmp_path: Path) -> None:
    script, page = tmp_path / "program.py", tmp_path / "page.html"
    script.write_text(
        "from amdrv.tensor import Tensor\n(Tensor([1.0], device='CPU') + 1).realize()\nraise ValueError\n"
    )
    assert main(["viz", str(script), "-o", str(page)]) == 1
    assert len(data_of(page)["plans"]) == 1
    assert main(["viz", "-o", str(page)]) == 2


# -- in a browser ------------------------------------------------------------------------------------------------------


class Browser:
    """Headless Chromium, spoken to over a pair of pipes (Chrome DevTools Protocol, --remote-debugging-pipe)."""

    def __init__(self, profile: Path) -> None:
        (child_in, self._out), (self._in, child_out) = os.pipe(), os.pipe()
        options = ("--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", "--window-size=1300,800")

        def arrange() -> None:  # the protocol's pipes are descriptors 3 and 4
            ends = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (child_in, child_out)]
            os.dup2(ends[0], 3)
            os.dup2(ends[1], 4)

        command = (BROWSER, *options, f"--user-data-dir={profile}", "about:blank")
        self._process = subprocess.Popen(command, pass_fds=(3, 4), preexec_fn=arrange, stderr=subprocess.DEVNULL)
        os.close(child_in)
        os.close(child_out)
        self._number, self._rest = 0, b""
        target = self._ask("Target.createTarget", {"url": "about:blank"})["targetId"]
        self._session = self._ask("Target.attachToTarget", {"targetId": target, "flatten": True})["sessionId"]

    def _ask(self, method: str, parameters: dict[str, Any], session: str | None = None) -> dict[str, Any]:
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        os.write(self._out, json.dumps(message | ({"sessionId": session} if session else {})).encode() + b"\0")
        while True:
            while b"\0" not in self._rest:
                got = os.read(self._in, 1 << 16)
                if not got:
                    raise EOFError("the browser has ended")
                self._rest += got
            answer, _, self._rest = self._rest.partition(b"\0")
            found = json.loads(answer)
            if found.get("id") == self._number:
                if "error" in found:
                    raise ValueError(found["error"])
                result: dict[str, Any] = found["result"]
                return result

    def run(self, script: str) -> Any:
        """The value of an expression in the page; awaits promises."""
        wanted = {"expression": script, "returnByValue": True, "awaitPromise": True}
        found = self._ask("Runtime.evaluate", wanted, self._session)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def open(self, page: Path, at: str = "") -> None:
        """Show a page and wait until it has started."""
        self._ask("Page.navigate", {"url": "about:blank"}, self._session)
        self._ask("Page.navigate", {"url": f"file://{page}{at}"}, self._session)
        started = "document.readyState === 'complete' && document.documentElement.dataset.ready || 'not yet'"
        for _ in range(200):
            if self.run(started) == "yes":
                return
            self.run("new Promise(done => setTimeout(done, 25))")
        raise TimeoutError("the page did not start")

    def press(self, key: str) -> None:
        """One key, as a person presses it."""
        for kind in ("keyDown", "keyUp"):
            self._ask("Input.dispatchKeyEvent", {"type": kind, "key": key, "text": key}, self._session)

    def close(self) -> None:
        os.close(self._out)
        self._process.terminate()
        self._process.wait(10)
        os.close(self._in)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    if not BROWSER:
        pytest.skip("there is no Chromium on this machine")
    found = Browser(tmp_path_factory.mktemp("profile"))
    try:
        yield found
    finally:
        found.close()


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training step of a small network."""
    path = tmp_path_factory.mktemp("page") / "page.html"
    with record() as found:
        w = Tensor(A.T @ A, device="CPU", requires_grad=True)
        loss = (Tensor(A, device="CPU") @ w).detach().softmax().contiguous().square().sum() + (w * w).mean()
        loss.backward()
        assert w.grad is not None
        loss.realize(w.grad)
    return write_page(found, path, "a small step")


def shown(browser: Browser) -> str:
    return str(
        browser.run(
            "[...document.querySelectorAll('main > section')].filter(s => s.clientHeight).map(s => s.id).join()"
        )
    )


def test_each_view_opens_and_has_something_in_it(browser: Browser, page: Path) -> None:
    plan = data_of(page)["plans"][0]
    wanted = {
        "graph": ("document.querySelectorAll('#steps li').length", len(plan["graph"]["steps"]) + 1),
        "schedule": ("document.querySelectorAll('#schedule tbody tr').length", len(plan["steps"])),
        "memory": ("document.querySelectorAll('#memory rect').length", len(plan["memory"]["CPU"]["arrays"])),
        "kernels": ("document.querySelectorAll('#kernellist li').length", len(plan["steps"])),
        "timeline": ("document.querySelectorAll('#timeline rect').length", len(plan["steps"])),
    }
    for view in VIEWS:
        browser.open(page, f"#view={view}")
        script, count = wanted[view]
        assert shown(browser) == view
        assert browser.run(script) == count, view
    assert browser.run("document.title") == "a small step"


def test_the_graph_is_drawn_and_changes_with_each_step(browser: Browser, page: Path) -> None:
    graph = data_of(page)["plans"][0]["graph"]
    browser.open(page, "#view=graph")
    drawn = "main.canvas.getContext('2d').getImageData(0, 0, main.canvas.width, main.canvas.height).data.some(v => v)"
    assert browser.run(drawn)
    for step in range(len(graph["steps"])):
        assert browser.run("main.graph.nodes.size") == len(graph["nodes"]) or step
        browser.press("j")
        assert browser.run("state.step") == step + 1
    assert browser.run("main.graph.nodes.size") == len(at_end(graph))
    assert browser.run("main.places.size") == len(at_end(graph))


def test_keys_change_views_and_a_kernel_shows_its_code(browser: Browser, page: Path) -> None:
    browser.open(page)
    for number, view in enumerate(VIEWS, 1):
        browser.press(str(number))
        assert shown(browser) == view
    browser.press("4")
    browser.press("j")
    kernel = data_of(page)["plans"][0]["steps"][1]["kernel"]
    for part in ("ir", "code", "arranged"):
        browser.run(f"state.part = '{part}', go()")
        text = data_of(page)["kernels"][kernel][part]
        assert browser.run("document.querySelector('#part pre').textContent") == text


def test_dark_and_light_differ(browser: Browser, page: Path) -> None:
    browser.open(page)
    background = "getComputedStyle(document.body).backgroundColor"
    before = browser.run(background)
    browser.run("document.getElementById('theme').click()")
    assert browser.run(background) != before
