"""The floors of the house: a package imports packages of lower floors only, no modules import in a circle."""

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from builders import ROOT, of_project

LIBRARY = ROOT / "src/emsuite"
DOORS = {"affinities", "lsds", "scores", "unet", "volume"}
FLOORS = (
    {"common"},
    {"io", "models", "losses"},
    {"augment", "targets", "blockwise", "phantom", "plates", "visualization", "download"},
    {"data", "segmentation"},
    {"config", "evaluation", "export"},
    {"training", "prediction"},
    {"workflow", "published"},
    {"cli"},
)
"""From the ground up. A package imports packages of lower floors and its own modules, nothing else."""
FLOOR = {package: number for number, floor in enumerate(FLOORS) for package in floor}
MODULES = {".".join(path.relative_to(LIBRARY).with_suffix("").parts): path for path in LIBRARY.glob("*/**/*.py")
           if path.name != "__init__.py"}  # fmt: skip


def imports(path: Path) -> Iterator[str]:
    """The library's modules, as `package.module`, that a file imports: at its top, in functions, for types alone."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import; expected one from emsuite.PACKAGE.MODULE"
            module = node.module or ""
            names = [module, *(f"{module}.{alias.name}" for alias in node.names)]
        else:
            continue
        yield from (name.removeprefix("emsuite.") for name in names if name.startswith("emsuite."))


GRAPH = {name: {found for found in imports(path) if found in MODULES} for name, path in MODULES.items()}


def reached_from(name: str) -> set[str]:
    """Every module that `name` imports, directly or through others."""
    reached, todo = set[str](), [name]
    while todo:
        for other in GRAPH[todo.pop()] - reached:
            reached.add(other)
            todo.append(other)
    return reached


def test_every_package_stands_on_a_floor() -> None:
    packages = {path.parent.name for path in LIBRARY.glob("*/__init__.py")}
    assert packages == FLOOR.keys()
    assert {path.stem for path in LIBRARY.glob("*.py")} == DOORS | {"__init__"}


@pytest.mark.parametrize("name", sorted(MODULES))
def test_a_module_reaches_lower_floors_only(name: str) -> None:
    package = name.split(".")[0]
    for other in reached_from(name):
        above = other.split(".")[0]
        assert above == package or FLOOR[above] < FLOOR[package], f"{name} imports {other}, directly or through others"


def test_no_module_enters_the_library_by_a_door() -> None:
    """Doors are for outsiders: a door may import from any floor, so that the library itself must not use one."""
    for name, path in MODULES.items():
        assert not {found.split(".")[0] for found in imports(path)} & DOORS, name


def test_modules_do_not_import_each_other_in_a_circle() -> None:
    try:
        TopologicalSorter(GRAPH).prepare()
    except CycleError as error:
        pytest.fail(f"imports go round: {error.args[1]}")


def test_packages_do_not_import_each_other_in_a_circle() -> None:
    """The packages themselves form no circle, even where every single module is free of one."""
    packages: dict[str, set[str]] = {package: set() for package in FLOOR}
    for name, found in GRAPH.items():
        own = name.split(".")[0]
        packages[own] |= {other.split(".")[0] for other in found} - {own}
    TopologicalSorter(packages).prepare()


def test_common_knows_nothing_of_volumes_labels_or_networks() -> None:
    for name in MODULES:
        if name.startswith("common."):
            assert all(other.startswith("common.") for other in GRAPH[name]), name


@pytest.mark.parametrize("package", ["losses", "targets", "models", "augment"])
def test_mathematics_opens_no_files(package: str) -> None:
    files = {"common.files", "common.outputs", "common.provenance", "io.volume", "io.tables"}
    for name in MODULES:
        if name.startswith(f"{package}."):
            assert not reached_from(name) & files, name


@pytest.mark.parametrize("library", ["h5py", "tensorstore", "tifffile", "zarr"])
def test_only_formats_know_the_libraries_of_formats(library: str) -> None:
    """Everything else asks `io.volume`, so that a new format is one module and its line in `FORMATS`."""
    scripts = {str(path.relative_to(ROOT)): path for path in of_project("0[0-9]_*/*.py")}
    for name, path in (MODULES | scripts).items():
        nodes = list(ast.walk(ast.parse(path.read_text())))
        found = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
        found |= {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}
        if not name.startswith("io.formats."):
            assert library not in {module.split(".")[0] for module in found}, name


def test_only_volumes_plates_and_patches_know_the_formats() -> None:
    """A plate has five axes and a folder of frames names them, of which a volume knows nothing; patches are many."""
    users = {"io.volume", "io.levels", "io.single_file", "plates.plate", "plates.frames", "data.transfer.patches"}
    for name, imported in GRAPH.items():
        if any(other.startswith("io.formats.") for other in imported):
            assert name in users or name.startswith("io.formats."), name


def test_records_of_inputs_say_how_volumes_are_fingerprinted() -> None:
    """`common` does not know formats: its own checksum would miss the metadata of volumes."""
    for name, path in MODULES.items():
        calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        for call in calls:
            if name.startswith("common.") or not isinstance(call.func, ast.Name):
                continue
            keywords = {keyword.arg for keyword in call.keywords}
            has_inputs = "inputs" in keywords or (call.func.id == "provenance" and len(call.args) > 1)
            if call.func.id in ("output", "provenance") and has_inputs:
                assert "fingerprint" in keywords, f"{name}:{call.lineno}: expected fingerprint=..."


def test_only_the_command_line_imports_click() -> None:
    for name, path in MODULES.items():
        if not name.startswith("cli."):
            assert "import click" not in path.read_text(), name
