"""The library leaves the process alone: only programs change its environment, memory, signals and files.

Importing changes nothing, and neither do ordinary functions; `emsuite.common.process` says who may.
"""

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator

from builders import ROOT

LIBRARY = ROOT / "src/emsuite"
MODULES = {".".join(path.relative_to(LIBRARY).with_suffix("").parts): path for path in LIBRARY.rglob("*.py")
           if path.name != "__init__.py"}  # fmt: skip
SWITCHES = {"dup2", "mallopt", "malloc_trim", "putenv", "set_num_interop_threads", "set_num_threads", "signal",
            "unsetenv"}  # fmt: skip
"""Functions, by their last name, that change something of the whole process (or of the thread that calls them)."""
ALLOWED = {
    "common.process": "the switches themselves",
    "blockwise.fork_server": "in processes that it has forked, which are nobody else's",
    "common.device": "torch's threads of the calling thread, on request, and as before behind a `with`",
    "io.formats.tensors.elsewhere": "in a process of its own, which answers on its output alone",
    "io.formats.tensors.store": "limits of libcurl, before tensorstore loads, unless the user has set them",
    "training.distributed": "within a `with`, which only training enters: signals end a run well",
    "workflow.environment": "Snakemake's own process, whose jobs inherit the environment",
}
ENTRIES = {"blockwise.worker", "cli.command", "cli.options"}
"""Modules where processes begin: they call what `common.process` offers."""
LOOK = """
import importlib, json, os, signal, sys

def state():
    links = (os.path.join("/proc/self/fd", number) for number in os.listdir("/proc/self/fd"))
    return {
        "environment": dict(os.environ),
        "signals": {int(number): repr(signal.getsignal(number)) for number in signal.valid_signals()},
        "files": {link: os.readlink(link) for link in links if os.path.lexists(link)},
        "streams": [id(sys.stdin), id(sys.stdout), id(sys.stderr)],
    }

for name in OTHERS:
    importlib.import_module(name)
before = state()
for name in MODULES:
    importlib.import_module(name)
after = state()
print(json.dumps([key for key in before if before[key] != after[key]]))
"""


def trees() -> Iterator[tuple[str, ast.Module]]:
    return ((name, ast.parse(path.read_text())) for name, path in MODULES.items())


def is_environment(node: ast.AST) -> bool:
    return isinstance(node, ast.Attribute) and node.attr == "environ"


def changes(tree: ast.AST) -> Iterator[str]:
    """What a module changes of its process, by its source."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Subscript) and is_environment(node.value) and not isinstance(node.ctx, ast.Load):
            yield f"os.environ, line {node.lineno}"
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            method = node.func.attr
            if is_environment(node.func.value) and method in ("clear", "pop", "popitem", "setdefault", "update"):
                yield f"os.environ.{method}, line {node.lineno}"
            elif method in SWITCHES:
                yield f"{method}, line {node.lineno}"
        elif isinstance(node, ast.AugAssign) and is_environment(node.target):
            yield f"os.environ, line {node.lineno}"


def test_importing_changes_nothing() -> None:
    """Every module; with an environment that has none of the suite's variables, and other packages loaded already."""
    from emsuite.common import process

    modules = sorted(f"emsuite.{name}" for name in MODULES)
    program = LOOK.replace("MODULES", repr(modules)).replace("OTHERS", repr(others()))
    environment = {name: value for name, value in os.environ.items() if name not in process._ENVIRONMENT}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []


def others() -> list[str]:
    """Other people's packages that modules import at their top: what they change is not ours to judge."""
    names = set()
    for _, tree in trees():
        for node in tree.body:
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names.add(node.module or "")
    return sorted(name for name in names if name.split(".")[0] not in {"emsuite", *sys.stdlib_module_names})


def test_only_entries_change_the_process() -> None:
    found = {name: list(changes(tree)) for name, tree in trees()}
    assert {name: places for name, places in found.items() if places and name not in ALLOWED} == {}
    assert {name for name, places in found.items() if places} == ALLOWED.keys(), "a reason for nothing"


def test_only_entries_use_the_switches() -> None:
    users = {name for name, tree in trees() for node in ast.walk(tree)
             if isinstance(node, ast.ImportFrom) and node.module == "emsuite.common.process"}  # fmt: skip
    assert users == ENTRIES


def test_a_change_is_seen() -> None:
    """Each of the ways that the test above looks for."""
    changing = (
        "os.environ['A'] = '1'",
        "del os.environ['A']",
        "os.environ |= {}",
        "os.environ.setdefault('A', '1')",
        "os.dup2(1, 2)",
        "library.mallopt(1, 2)",
        "signal.signal(1, f)",
        "torch.set_num_threads(1)",
    )
    for line in changing:
        assert list(changes(ast.parse(line))), line
    for line in ("os.environ['A']", "os.environ.get('A')", "x = os.environ | {}", "library.malloc()"):
        assert not list(changes(ast.parse(line))), line


def test_entries_set_up_their_process_before_numpy_and_torch_are_loaded() -> None:
    heavy = {"numpy", "numba", "scipy", "torch"}
    program = "import sys, importlib; importlib.import_module({!r}); print(*sys.modules)"
    for name in ("common.process", *ENTRIES):
        command = [sys.executable, "-c", program.format(f"emsuite.{name}")]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert not heavy & set(done.stdout.split()), name
