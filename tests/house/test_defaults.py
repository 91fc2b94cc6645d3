"""Defaults stand once: options of scripts agree with the schemas, and the library knows no script."""

import ast
import re
from pathlib import Path
from typing import Any

import click
import pytest

from builders import ROOT, command_of, of_project
from emsuite.cli.schema import SchemaOption
from emsuite.data.membranes import LabelsRule
from emsuite.phantom.settings import PhantomSettings
from emsuite.segmentation.instances.settings import InstanceSettings
from emsuite.segmentation.settings import SegmentationSettings
from emsuite.workflow.settings import WorkflowConfig

SCRIPTS = of_project("0[0-9]_*/*.py")
SCHEMAS = (SegmentationSettings, InstanceSettings, PhantomSettings, LabelsRule)
KEYS = {name: field for schema in SCHEMAS for name, field in schema.model_fields.items()}
FROM_SCHEMA = {
    "synthesize": 15,
    "extract_fragments": 11,
    "agglomerate": 3,
    "find_segments": 1,
    "evaluate": 2,
    "create_labels": 3,
    "decode_instances": 10,
}
"""The number of options that each script takes from a schema."""
BY_HAND = {
    ("decode_instances", "block_size"): "no context is read with a block, and the result does not depend on it",
    ("evaluate", "block_size"): "the evaluation has blocks of its own, of 256 voxels",
    ("export", "block_size"): "the export has blocks of its own, of about 128 voxels",
    ("train", "seed"): "the key training.sampling.seed of a network",
} | {(stage, "slurm"): "KEY=VALUE for each key of the settings for Slurm"
     for stage in ("convert", "make_pyramid", "extract_fragments", "agglomerate", "extract_segmentation",
                   "decode_instances", "evaluate", "export", "degrade", "write_pairs")} | {
    (script, "voxel_size"): "of files that say none; the phantom's key is that of volumes to make"
    for script in ("convert", "create_labels", "create_masks", "info", "view_data", "train", "find_learning_rate",
                   "predict", "extract_fragments", "agglomerate", "decode_instances", "evaluate", "export", "view",
                   "degrade", "write_pairs", "compare_volumes", "filter_patches")}  # fmt: skip
"""Options that share their name with a key of a schema, and the reason why they are not made from it."""


def options_in(script: Path) -> list[click.Option]:
    return [option for option in command_of(script).params if isinstance(option, click.Option)]


def plain(default: Any) -> Any:
    """The default of an option as its schema writes it."""
    if isinstance(default, str) and re.fullmatch(r"\d+,\d+,\d+", default):
        return tuple(map(int, default.split(",")))
    return None if "UNSET" in repr(default) else default


def test_no_key_stands_in_two_schemas() -> None:
    assert len(KEYS) == sum(len(schema.model_fields) for schema in SCHEMAS)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_options_of_a_schema_have_its_names_defaults_and_descriptions(script: Path) -> None:
    made = [option for option in options_in(script) if isinstance(option, SchemaOption)]
    assert len(made) == FROM_SCHEMA.get(script.stem, 0)
    for option in made:
        field = KEYS[option.name]
        assert option.opts == ["--" + option.name.replace("_", "-")]
        assert plain(option.default) == field.default, f"{script.name}: {option.opts[0]}"
        assert option.help == field.description, f"{script.name}: {option.opts[0]}"


def test_no_script_says_by_hand_what_a_schema_says() -> None:
    by_hand = {(script.stem, option.name) for script in SCRIPTS for option in options_in(script)
               if option.name in KEYS and not isinstance(option, SchemaOption)}  # fmt: skip
    assert by_hand == BY_HAND.keys()


def test_the_device_is_the_workflows() -> None:
    field = WorkflowConfig.model_fields["device"]
    for script in SCRIPTS:
        for option in options_in(script):
            if option.name == "device":
                assert option.default == field.default, script.name
                assert tuple(option.type.choices) == field.annotation.__args__, script.name


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


def test_the_folders_of_the_project_stand_in_one_module() -> None:
    found = {path.relative_to(ROOT / "src/emsuite").as_posix(): text
             for path in (ROOT / "src/emsuite").rglob("*.py") for text in texts(path)
             if re.search(r"\b0[1-4]_[a-z]", text)}  # fmt: skip
    assert found.keys() == {"config/layout.py"}
