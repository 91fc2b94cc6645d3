"""The sizes of packages, modules, functions and scripts, and what must be documented."""

import ast
import statistics
from collections.abc import Iterator
from pathlib import Path

from builders import ROOT, of_project

LIBRARY = ROOT / "src/emsuite"
MODULES = sorted(path for path in LIBRARY.glob("*/**/*.py") if path.name != "__init__.py")
DOORS = sorted(path for path in LIBRARY.glob("*.py") if path.name != "__init__.py")
SCRIPTS = of_project("0[0-9]_*/*.py")
LINES_OF_GUARD = 6
"""Of each script: `try`, and two that tell in one line of a Python without the suite."""


def lines(path: Path) -> int:
    return len(path.read_text().splitlines())


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def functions(path: Path) -> Iterator[ast.FunctionDef]:
    return (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef))


LARGE_ON_PURPOSE = {
    "augment": "each augmentation by its name, and for each kind of device a way to read volumes",
    "common": "the ground floor, whose modules have no other package below to go to",
    "data": "what training reads, and what is made of it, each by its name",
    "evaluation": "each kind of score by its name, and what an evaluation shows of them",
    "prediction": "where tiles lie, how they combine, and how each kind of output is written",
    "plates": "each step of preprocessing by its name",
    "targets": "each kind of target by its name, and for each kind of device a way to compute descriptors",
    "training": "each part of a run by its name; a second kind of step will give the steps a package",
    "workflow": "the plan of each workflow, its orders, and the parts that all of them share",
}


def test_packages_hold_a_handful_of_modules() -> None:
    sizes = {
        folder.parent.name: len([path for path in folder.parent.glob("*.py") if path.name != "__init__.py"])
        for folder in LIBRARY.glob("*/**/__init__.py")
    }
    assert len(sizes) >= 19
    assert {name for name, size in sizes.items() if size > 13} <= LARGE_ON_PURPOSE.keys()
    assert max(sizes.values()) <= 15
    assert {name for name, size in sizes.items() if size < 4} == set()


def test_package_files_are_empty() -> None:
    assert [relative(path) for path in LIBRARY.glob("*/**/__init__.py") if path.read_text().strip()] == []


def test_doors_only_open() -> None:
    for path in DOORS:
        assert lines(path) <= 7, path
        kinds = [type(node) for node in ast.parse(path.read_text()).body]
        assert kinds == [ast.Expr, ast.ImportFrom, ast.Assign], path


def test_modules_are_neither_large_nor_tiny() -> None:
    sizes = {relative(path): lines(path) for path in MODULES}
    assert {name: size for name, size in sizes.items() if size > 320} == {}
    assert statistics.median(sizes.values()) <= 150
    for path in MODULES:
        if lines(path) < 25:
            importers = [other for other in MODULES if f"{path.parent.name}.{path.stem} import" in other.read_text()]
            assert len(importers) > 1, f"{relative(path)}: {lines(path)} lines for one importer, {importers}"


def code_lines(function: ast.FunctionDef) -> int:
    """The lines of a function without its docstring, which names each argument on a line of its own."""
    first = function.body[0]
    docstring = (first.end_lineno or 0) - first.lineno + 1 if ast.get_docstring(function) else 0
    return (function.end_lineno or 0) - function.lineno + 1 - docstring


def test_functions_are_short() -> None:
    lengths = {
        f"{relative(path)}: {function.name}": code_lines(function)
        for path in [*MODULES, *SCRIPTS]
        for function in functions(path)
    }
    assert {name: length for name, length in lengths.items() if length > 42} == {}


def test_scripts_are_thin() -> None:
    assert len(SCRIPTS) >= 14
    sizes = {relative(path): lines(path) - LINES_OF_GUARD for path in SCRIPTS}
    assert {name: size for name, size in sizes.items() if size >= 80} == {}


def test_what_is_public_is_documented() -> None:
    def undocumented(node: ast.Module | ast.ClassDef, name: str) -> Iterator[str]:
        if not ast.get_docstring(node):
            yield name
        for inner in node.body:
            if isinstance(inner, ast.ClassDef) and not inner.name.startswith("_"):
                yield from undocumented(inner, f"{name}.{inner.name}")
            elif isinstance(inner, ast.FunctionDef) and not inner.name.startswith("_") and not ast.get_docstring(inner):
                yield f"{name}.{inner.name}"

    files = [*MODULES, *DOORS, *SCRIPTS]
    assert [u for path in files for u in undocumented(ast.parse(path.read_text()), path.stem)] == []
