"""Settings from yaml: strict pydantic models, and errors that name the file, the line and the key."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from emsuite.errors import BadInput


class Settings(BaseModel):
    """Base of all settings: frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


Model = TypeVar("Model", bound=Settings)


def load(model: type[Model], *paths: Path, overrides: Sequence[str] = ()) -> Model:
    """Read `model` from yaml files, later ones over earlier ones (mappings merge, all else replaces).

    `overrides` are `key.subkey=value` strings, the value in yaml, applied last.
    """
    merged: dict[str, Any] = {}
    for path in paths:
        merged = merge(merged, read_yaml(path))
    for text in overrides:
        merged = merge(merged, parse_override(text))
    try:
        return model.model_validate(merged)
    except ValidationError as error:
        raise BadInput(_first_line(error, paths, overrides)) from None


def validate(model: type[Model], content: Mapping[str, Any], where: str) -> Model:
    """Check settings that were read by another program; `where` says in messages where they came from."""
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise BadInput(f"{where}: {_first_line(error, (), ()).partition(': ')[2]}") from None


def read_yaml(path: Path) -> dict[str, Any]:
    """A yaml mapping as a dict; duplicate keys are refused."""
    try:
        content = yaml.load(Path(path).read_text(encoding="utf-8"), _UniqueKeys)
    except FileNotFoundError:
        raise BadInput(f"{path}: no such file; expected a yaml file of settings") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: not valid yaml: {error}") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise BadInput(f"{path}: holds a {type(content).__name__}, expected keys and values")
    return content


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`over` laid over `base`: mappings merge key by key, everything else replaces."""
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = merge(merged[key], value) if both else value
    return merged


def parse_override(text: str) -> dict[str, Any]:
    """`a.b=[1, 2]` as `{"a": {"b": [1, 2]}}`."""
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
        keys = [key.value for key, _ in node.value]
        for key, _ in node.value:
            if keys.count(key.value) > 1:
                raise yaml.YAMLError(f"line {key.start_mark.line + 1}: the key '{key.value}' is there twice")
        return super().construct_mapping(node, deep)


def _first_line(error: ValidationError, paths: Sequence[Path], overrides: Sequence[str]) -> str:
    problem = error.errors()[0]
    where = [part for part in problem["loc"] if not _is_union_tag(part, problem["loc"])]
    key = ".".join(str(part) for part in where) or "(top level)"
    held = "" if problem["type"] == "missing" else f"; it holds {str(problem['input'])[:80]!r}"
    place = _place(where, paths, overrides)
    more = f" ({error.error_count() - 1} more like this)" if error.error_count() > 1 else ""
    return f"{place}: {key}: {_in_plain_words(problem['type'], problem['msg'])}{held}{more}"


def _in_plain_words(kind: str, message: str) -> str:
    known = {"extra_forbidden": "unknown key", "missing": "missing, expected a value"}
    return known.get(kind, message.removeprefix("Value error, "))


def _is_union_tag(part: Any, where: Sequence[Any]) -> bool:
    # pydantic puts the tag of a discriminated union into the location, directly behind a list index or key
    position = where.index(part)
    return isinstance(part, str) and position > 0 and isinstance(where[position - 1], int) and position + 1 < len(where)


def _place(where: Sequence[Any], paths: Sequence[Path], overrides: Sequence[str]) -> str:
    key = ".".join(str(part) for part in where)
    for text in overrides:
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
            hit = [(key, value) for key, value in node.value if key.value == str(part)]
            if not hit:
                return
            line, node = hit[0][0].start_mark.line + 1, hit[0][1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line + 1
        else:
            return
    if line is not None:
        yield line
