"""Defaults stand once: options of scripts agree with the schemas, and the library knows no script."""

import ast
import re
from pathlib import Path
from typing import Any

import click
import pytest

from builders import ROOT, command_of
from emsuite.phantom.settings import PhantomSettings
from emsuite.segmentation.settings import SegmentationSettings
from emsuite.workflow.plan import WorkflowConfig

SCRIPTS = sorted(ROOT.glob("0[0-9]_*/*.py"))
SEGMENTATION = ("extract_fragments", "agglomerate", "find_segments", "extract_segmentation", "evaluate")
SCHEMAS = {"synthesize": PhantomSettings} | dict.fromkeys(SEGMENTATION, SegmentationSettings)
OTHERS = {("evaluate", "block_size"): "the evaluation's own blocks, of 256 voxels"}
"""Options that share their name with a key of a schema and mean something else."""


def plain(default: Any) -> Any:
    """The default of an option as its schema writes it."""
    if isinstance(default, str) and re.fullmatch(r"\d+,\d+,\d+", default):
        return tuple(map(int, default.split(",")))
    return None if "UNSET" in repr(default) else default


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_no_option_has_another_default_than_its_key(script: Path) -> None:
    options = {option.name: option for option in command_of(script).params if isinstance(option, click.Option)}
    if "device" in options:
        assert options["device"].default == WorkflowConfig.model_fields["device"].default
    schema = SCHEMAS.get(script.stem)
    fields = {} if schema is None else schema.model_fields
    compared = [name for name in options if name in fields and (script.stem, name) not in OTHERS]
    for name in compared:
        default = plain(options[name].default)
        assert default == fields[name].default, f"{script.name}: {options[name].opts[0]}"
        assert name == "slurm" or options[name].help == fields[name].description, f"{script.name}: {name}"
    generated = [name for name in compared if name != "slurm"]
    assert len(generated) == {"synthesize": 13, "extract_fragments": 10, "agglomerate": 2, "find_segments": 1}.get(
        script.stem, 0
    )


def texts(path: Path) -> list[str]:
    """The texts in a module that people and programs see: all but docstrings."""
    tree = ast.parse(path.read_text())
    docs = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    return [node.value for node in ast.walk(tree)
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs]  # fmt: skip


def test_the_library_names_no_script() -> None:
    names = [path.name for path in SCRIPTS]
    found = {
        f"{path.relative_to(ROOT)}: {text}"
        for path in (ROOT / "src/emsuite").rglob("*.py")
        for text in texts(path)
        if any(re.search(rf"\b{re.escape(name)}\b", text) for name in names)
    }
    assert found == set()
