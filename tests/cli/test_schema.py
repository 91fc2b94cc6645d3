"""Options that are read from the source of a settings class: the same keys as pydantic sees."""

from importlib import import_module
from typing import Any, get_args

import click
import pytest
from click.testing import CliRunner
from pydantic import ValidationError

from emsuite.cli import schema
from emsuite.cli.schema import Key, keys_of, options_of
from emsuite.common.settings import as_options
from emsuite.segmentation import settings as segmentation
from emsuite.segmentation.merge_hierarchy import MERGE_FUNCTIONS
from emsuite.segmentation.settings import MergeFunction, SegmentationSettings

SCHEMAS = [
    ("emsuite.segmentation.settings", "FragmentSettings"),
    ("emsuite.segmentation.settings", "AgglomerationSettings"),
    ("emsuite.segmentation.settings", "SweepSettings"),
    ("emsuite.segmentation.settings", "BlockSettings"),
    ("emsuite.phantom.settings", "PhantomSettings"),
]


def edges(key: Key) -> list[Any]:
    """Values at the limits of a key, inside and outside."""
    kind = key.kind.members[0] if key.kind.name == "tuple" else key.kind
    step = 1 if kind.name == "int" else 1e-6
    numbers = [number + shift for number in (kind.low, kind.high) if number is not None for shift in (-step, 0, step)]
    values = numbers if kind.name != "choice" else [*kind.members, "nothing"]
    return [(value,) * len(key.kind.members) for value in values] if key.kind.name == "tuple" else values


@pytest.mark.parametrize(("module", "name"), SCHEMAS, ids=lambda part: part.rpartition(".")[2])
def test_keys_defaults_and_limits_are_those_of_the_model(module: str, name: str) -> None:
    model = getattr(import_module(module), name)
    keys = keys_of(module, name)
    assert {key.name for key in keys} == model.model_fields.keys()
    for key in keys:
        field = model.model_fields[key.name]
        assert (key.default, key.description) == (field.default, field.description)

        @click.command()
        @click.option("--value", type=key.kind.click_type())
        def command(value: Any) -> None:
            """Parse one value."""

        for value in edges(key):
            several = [str(number) for number in (value if isinstance(value, tuple) else (value,))]
            words = [",".join(several)] if len(several) == 3 else several
            parsed = CliRunner().invoke(command, ["--value", *words]).exit_code == 0
            try:
                model.__pydantic_validator__.validate_assignment(model.model_construct(), key.name, value)
                valid = True
            except ValidationError as error:
                valid = all(problem["loc"][:1] != (key.name,) for problem in error.errors())
            # `z,y,x` is checked by the model alone, but for whole numbers above 0
            assert parsed == valid or (isinstance(value, tuple) and not valid), (key, value)


def test_options_bear_names_defaults_and_help() -> None:
    @click.command()
    @options_of("emsuite.segmentation.settings", "FragmentSettings")
    def command(**chosen: Any) -> None:
        """Print what was chosen."""
        click.echo(repr(chosen))

    values = eval(CliRunner().invoke(command, ["--bias", "0.1", "0.2", "--in-sections"]).output)
    assert values["bias"] == (0.1, 0.2)
    assert values["in_sections"] is True
    assert (values["flood"], values["min_seed_distance"]) == ("affinity", 10)
    assert CliRunner().invoke(command, ["--epsilon", "2"]).exit_code == 2
    assert CliRunner().invoke(command, ["--flood", "water"]).exit_code == 2


def test_every_merge_function_can_be_chosen() -> None:
    assert get_args(MergeFunction) == tuple(MERGE_FUNCTIONS)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"flood": "distance", "seeds": "mutex", "bias": (0.25, 1), "debris": 0, "in_sections": True, "epsilon": 0.1},
        {"block_size": (2048, 1024, 512), "context": (512, 256, 128), "merge_function": "mean", "thresholds": "0,1,.1"},
    ],
)
def test_words_of_settings_are_read_back_as_they_were(settings: dict[str, Any]) -> None:
    """The workflow passes settings with `as_options`, the scripts read them with `options_of`."""
    parts = ["FragmentSettings", "AgglomerationSettings", "SweepSettings", "BlockSettings"]
    read: dict[str, Any] = {}

    def command(**chosen: Any) -> None:
        read.update(chosen)

    for part in parts:
        command = options_of("emsuite.segmentation.settings", part)(command)
    whole = SegmentationSettings(**settings)
    words = [word for part in parts for word in as_options(whole, getattr(segmentation, part))]
    click.command()(command).main(words, standalone_mode=False)
    assert SegmentationSettings(**read) == whole


def test_names_of_a_table_are_read_without_importing_its_module() -> None:
    from emsuite.prediction.blending import BLENDINGS

    assert schema.names_in("emsuite.prediction.blending", "BLENDINGS") == list(BLENDINGS)
    with pytest.raises(LookupError, match="has no NOTHING"):
        schema.names_in("emsuite.prediction.blending", "NOTHING")
