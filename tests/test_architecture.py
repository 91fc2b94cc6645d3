"""How the suite is built, held by tests: imports go downwards, modules and functions stay small, scripts stay thin."""

import ast
import statistics
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LIBRARY = {path.stem: path for path in (ROOT / "src/emsuite").glob("*.py")}
SCRIPTS = sorted(ROOT.glob("0[0-9]_*/*.py"))
STAGES = sorted(ROOT.glob("0[0-9]_*/"))

# From the bottom up; each may import from its own layer and from those before it, whatever is not named here from all
# but the engines.
FILES = {"files", "provenance", "output", "progress", "store", "volume"}
MATHEMATICS = {
    "affinities", "agglomerate", "balance", "boundary", "boxes", "contingency", "edits", "faults", "fragments",
    "geometry", "interpolate", "locations", "losses", "lsds", "malis", "mistakes", "moments", "network", "resample",
    "run_length", "scores", "sorted_ids", "tensors", "unet", "warp", "watershed",
} | {name for name in LIBRARY if name.startswith(("augment", "phantom_"))}  # fmt: skip
ENGINES = {
    "agglomeration",
    "comparison",
    "evaluate",
    "fault_positions",
    "fetch",
    "fragmentation",
    "image_fetch",
    "learning_rate_range",
    "predict",
    "published",
    "report",
    "scoring",
    "segmentation",
    "trainer",
    "view",
    "workflow",
}
COMMAND_LINE = {"command", "options"}


def imports(path: Path) -> set[str]:
    """The library's modules that a file imports, at its top or in its functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "emsuite":
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("emsuite."):
            found.add((node.module or "").split(".")[1])
        elif isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("emsuite.")}
    return found & LIBRARY.keys()


GRAPH = {name: imports(path) for name, path in LIBRARY.items()}


def reached_from(name: str) -> set[str]:
    reached, todo = set[str](), [name]
    while todo:
        for other in GRAPH[todo.pop()] - reached:
            reached.add(other)
            todo.append(other)
    return reached


def functions(path: Path) -> Iterator[ast.FunctionDef]:
    return (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef))


def lines(path: Path) -> int:
    return len(path.read_text().splitlines())


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_the_layers_name_modules_that_exist() -> None:
    assert LIBRARY.keys() >= (FILES | MATHEMATICS | ENGINES | COMMAND_LINE)


def test_modules_do_not_import_each_other_in_a_circle() -> None:
    try:
        TopologicalSorter(GRAPH).prepare()
    except CycleError as error:
        pytest.fail(f"imports go round: {error.args[1]}")


def test_only_engines_import_engines() -> None:
    # what an engine's result looks like may be known to those that show it
    shows = {name: {"evaluate"} for name in ("curves", "pictures", "sections")}
    for name in LIBRARY.keys() - ENGINES:
        assert GRAPH[name] & ENGINES <= shows.get(name, set()), name
    for name in MATHEMATICS | FILES:
        assert not reached_from(name) & ENGINES, name


def test_mathematics_reads_and_writes_no_files() -> None:
    for name in MATHEMATICS:
        assert not GRAPH[name] & FILES, name


def test_only_scripts_have_to_do_with_the_command_line() -> None:
    for name in LIBRARY.keys() - COMMAND_LINE:
        assert not GRAPH[name] & COMMAND_LINE, name
        assert "import click" not in LIBRARY[name].read_text(), name


def test_library_modules_do_not_know_the_scripts() -> None:
    stems = {path.stem for path in SCRIPTS}
    for name, path in LIBRARY.items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                assert not {alias.name for alias in node.names} & stems, name
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{name}: import from emsuite by its name"
                assert node.module not in stems, name


def test_modules_are_small() -> None:
    sizes = {name: lines(path) for name, path in LIBRARY.items()}
    assert {name: size for name, size in sizes.items() if size > 400} == {}
    assert statistics.median(sizes.values()) <= 150


def test_functions_are_short() -> None:
    lengths = {
        f"{relative(path)}: {function.name}": (function.end_lineno or 0) - function.lineno + 1
        for path in [*LIBRARY.values(), *SCRIPTS]
        for function in functions(path)
    }
    assert {name: length for name, length in lengths.items() if length > 45} == {}


def test_scripts_are_thin() -> None:
    assert len(SCRIPTS) >= 14
    assert {relative(path): lines(path) for path in SCRIPTS if lines(path) >= 80} == {}


def test_what_is_public_is_documented() -> None:
    def undocumented(node: ast.Module | ast.ClassDef, name: str) -> Iterator[str]:
        if not ast.get_docstring(node):
            yield name
        for inner in node.body:
            if isinstance(inner, ast.ClassDef) and not inner.name.startswith("_"):
                yield from undocumented(inner, f"{name}.{inner.name}")
            elif isinstance(inner, ast.FunctionDef) and not inner.name.startswith("_") and not ast.get_docstring(inner):
                yield f"{name}.{inner.name}"

    found = [u for path in [*LIBRARY.values(), *SCRIPTS] for u in undocumented(ast.parse(path.read_text()), path.stem)]
    assert found == []


def test_no_script_is_copied_into_a_network() -> None:
    for stage in STAGES:
        assert [relative(path) for path in stage.glob("*/**/*.py")] == []


@pytest.mark.parametrize("script", SCRIPTS, ids=relative)
def test_help_has_an_example_and_comes_quickly(script: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-X", "importtime", script, "--help"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"Usage: {script.name} ")
    example = done.stdout.partition("Example:\n")[2]
    assert f"python {relative(script)} " in example
    assert not done.stdout.count("Error")
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert "emsuite.command" in imported
    assert not imported & {"torch", "neuroglancer", "daisy", "matplotlib"}, "import what is heavy where it is used"
    assert list(tmp_path.iterdir()) == [], "help leaves nothing behind"


def test_scripts_tell_results_and_take_paths_alike() -> None:
    """Results on stdout, what goes on meanwhile on stderr by the library; paths as `options.FILE`."""
    for unlike in ("import logging", "click.Path(path_type=Path)"):
        assert [relative(path) for path in SCRIPTS if unlike in path.read_text()] == [], unlike


@pytest.mark.parametrize("script", SCRIPTS, ids=relative)
def test_scripts_begin_and_end_alike(script: Path) -> None:
    text = script.read_text()
    assert text.startswith('#!/usr/bin/env python\n"""')
    assert text.endswith('\n\nif __name__ == "__main__":\n    main()\n')
