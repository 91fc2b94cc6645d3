"""Settings from yaml: strict pydantic models, errors that name file, line and key, and words for command lines.

class Noise(Settings):
    sigma: NonNegative = 0.1

load(Noise, Path("noise.yaml"), overrides=["sigma=-1"])
BadInput: --set sigma=-1: sigma: Input should be greater than or equal to 0; it holds -1
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from emsuite.common.errors import BadInput


class Settings(BaseModel):
    """The base class of all settings: instances are frozen, and unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


Model = TypeVar("Model", bound=Settings)


def load(
    model: type[Model], *paths: Path, overrides: Sequence[str] = (), defaults: Mapping[str, Any] | None = None
) -> Model:
    """Read settings from yaml files.

    Args:
        model: the class of the settings.
        paths: yaml files. Later files override earlier ones, key by key.
        overrides: `key.subkey=value` texts, with the value in yaml, which override the files.
        defaults: keys that count where no file has them.

    Raises:
        BadInput: a file is no valid yaml, or a key is unknown, missing or holds a wrong value.
    """
    merged: dict[str, Any] = dict(defaults or {})
    for path in paths:
        merged = merge(merged, read_yaml(path))
    for text in overrides:
        merged = merge(merged, parse_override(text))
    try:
        return model.model_validate(merged)
    except ValidationError as error:
        raise BadInput(_first_line(error, merged, paths, overrides)) from None


def validate(model: type[Model], content: Mapping[str, Any], where: str) -> Model:
    """Check settings that another program has read; `where` names their origin in the message of BadInput."""
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise BadInput(f"{where}: {_first_line(error, content, (), ()).partition(': ')[2]}") from None


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a yaml mapping as a dict; raise BadInput for anything else, and for a key that stands twice."""
    try:
        content = yaml.load(Path(path).read_text(encoding="utf-8"), _UniqueKeys)
    except FileNotFoundError:
        raise BadInput(f"{path}: no such file; expected a yaml file of settings") from None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise BadInput(f"{path}:{line}: not valid yaml: {error.problem}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: not valid yaml: {error}") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise BadInput(f"{path}: holds a {type(content).__name__}, expected keys and values")
    return content


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return `base` overridden by `over`: mappings merge key by key, any other value is replaced."""
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = merge(merged[key], value) if both else value
    return merged


def parse_override(text: str) -> dict[str, Any]:
    """Return `{"a": {"b": [1, 2]}}` for `a.b=[1, 2]`; raise BadInput for a text without `=` or with invalid yaml."""
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise BadInput(f"--set {text}: expected key=value, as training.batch_size=2")
    try:
        nested: Any = yaml.safe_load(value)
    except yaml.YAMLError:
        raise BadInput(f"--set {text}: the value is not valid yaml") from None
    for part in reversed(key.split(".")):
        nested = {part: nested}
    return nested


class _UniqueKeys(yaml.SafeLoader):
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen: list[Any] = []
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.MarkedYAMLError(problem=f"the key '{key.value}' is there twice", problem_mark=key.start_mark)
            seen.append(key.value)
        return super().construct_mapping(node, deep)


def _first_line(
    error: ValidationError, content: Mapping[str, Any], paths: Sequence[Path], overrides: Sequence[str]
) -> str:
    # a misspelt key gives two errors, an unknown and a missing key: the unknown key helps more
    problem = min(error.errors(), key=lambda problem: problem["type"] != "extra_forbidden")
    where = _keys(content, problem["loc"], problem["type"] == "missing")
    key = ".".join(str(part) for part in where) or "(top level)"
    # the value is not shown for a missing key, nor for a mapping whose keys contradict each other
    is_whole = problem["type"] == "missing" or isinstance(problem["input"], Mapping)
    value = "" if is_whole else f"; it holds {_shortened(repr(problem['input']))}"
    origin = _origin(where, paths, overrides)
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    return f"{origin}: {key}: {_in_plain_words(problem['type'], problem['msg'])}{value}{more}"


def _in_plain_words(kind: str, message: str) -> str:
    if kind == "literal_error":
        return "expected one of " + ", ".join(re.findall(r"'([^']*)'", message))
    plain = {"extra_forbidden": "unknown key", "missing": "missing, expected a value"}
    return plain.get(kind, message.removeprefix("Value error, "))


def _shortened(text: str) -> str:
    return text if len(text) <= 80 else text[:80] + "..."


def _keys(content: Any, location: Sequence[Any], last_is_missing: bool) -> list[Any]:
    # pydantic adds words of its own to a location, as the tag of a union: leave out words that are no keys of `content`
    keys = []
    for position, part in enumerate(location):
        if isinstance(content, Mapping) and part in content:
            content = content[part]
        elif isinstance(content, Sequence) and not isinstance(content, str) and isinstance(part, int):
            content = content[part] if part < len(content) else None
        elif not (last_is_missing and position == len(location) - 1):
            continue
        keys.append(part)
    return keys


def _origin(where: Sequence[Any], paths: Sequence[Path], overrides: Sequence[str]) -> str:
    """Return `file:line`, or `--set ...`, that gave the value at the keys `where`."""
    key = ".".join(str(part) for part in where)
    for text in reversed(overrides):
        if key and (key == text.partition("=")[0] or key.startswith(text.partition("=")[0] + ".")):
            return f"--set {text}"
    for depth in range(len(where), 0, -1):
        for path in reversed(paths):
            for line in _lines_of(yaml.compose(Path(path).read_text(encoding="utf-8")), where[:depth]):
                return f"{path}:{line}"
    return str(paths[-1]) if paths else "settings"


def _lines_of(node: Any, where: Sequence[Any]) -> Iterator[int]:
    line = None
    for part in where:
        if isinstance(node, yaml.MappingNode):
            entries = [(key, value) for key, value in node.value if key.value == str(part)]
            if not entries:
                return
            line, node = entries[0][0].start_mark.line + 1, entries[0][1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line + 1
        else:
            return
    if line is not None:
        yield line


def _ascending(limits: tuple[float, float]) -> tuple[float, float]:
    if limits[0] > limits[1]:
        raise ValueError("expected [lowest, highest]")
    return limits


Range = Annotated[tuple[float, float], AfterValidator(_ascending)]
NonNegative = Annotated[float, Field(ge=0)]
NonNegativeRange = Annotated[tuple[NonNegative, NonNegative], AfterValidator(_ascending)]
Probability = Annotated[float, Field(ge=0, le=1)]


def as_options(settings: object, keys: "type[Settings] | Iterable[str]") -> list[str]:
    """Return the command-line words that pass settings on to a script.

    `min_seed_distance` becomes `--min-seed-distance VALUE`. Three whole numbers become one word, `z,y,x`; the members
    of other tuples become a word each. True becomes the option without a value; False and None become no words.

    Args:
        settings: an object with an attribute for each of the keys.
        keys: names of the settings to pass, or a settings class, whose keys are passed.
    """
    words: list[str] = []
    for key in keys.model_fields if isinstance(keys, type) else keys:
        value, option = getattr(settings, key), "--" + key.replace("_", "-")
        if value is None or value is False:
            continue
        if value is True:
            words.append(option)
        elif isinstance(value, tuple) and all(isinstance(number, int) for number in value):
            words += [option, ",".join(map(str, value))]
        else:
            words += [option, *map(str, value if isinstance(value, tuple) else (value,))]
    return words
