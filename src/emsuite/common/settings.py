"""Settings from yaml: strict pydantic models, errors that name file, line and key, and words for command lines.

class Noise(Settings):
    sigma: NonNegative = 0.1

load(Noise, Path("noise.yaml"), overrides=["sigma=-1"])
BadInput: --set sigma=-1: sigma: Input should be greater than or equal to 0; it holds -1
"""

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar, get_args
from unicodedata import category

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator
from pydantic.functional_validators import BeforeValidator

from emsuite.common.documents import parse_yaml, parse_yaml_nodes, read_text, shortened
from emsuite.common.errors import BadInput

_MISSING = "missing, expected a value"
_text = partial(read_text, expected="a yaml file of settings", most_bytes=2**20)
_MOST_LEVELS = 20
"""Of a key on a command line."""
_CONTROL = {"Cc", "Cs", "Zl", "Zp"}
"""Unicode's categories of characters that a name has none of: controls, halves of pairs, ends of lines."""


class Settings(BaseModel):
    """The base class of all settings: instances are frozen, and unknown keys are errors.

    Texts are not blank and have no control characters; numbers fit into 64 bits, as NumPy and torch count.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)
    prose: ClassVar[frozenset[str]] = frozenset()
    """Keys whose texts may have several lines."""

    @field_validator("*")
    @classmethod
    def _plain(cls, value: Any, info: ValidationInfo) -> Any:
        if value != cls.model_fields[info.field_name or ""].default:
            _check_plain(value, "\n" if info.field_name in cls.prose else "")
        return value


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
        raise BadInput(_first_line(model, error, merged, paths, overrides)) from None


def validate(model: type[Model], content: Mapping[str, Any], where: str) -> Model:
    """Check settings that another program has read; `where` names their origin in the message of BadInput."""
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise BadInput(f"{where}: {_first_line(model, error, content, (), ()).partition(': ')[2]}") from None


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a yaml mapping as a dict; raise BadInput for anything else, and for a key that stands twice."""
    try:
        content = parse_yaml(_text(path))
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise BadInput(f"{path}:{line}: not valid yaml: {error.problem}") from None
    except yaml.YAMLError as error:
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
    if not equals or not key or key.count(".") > _MOST_LEVELS:
        raise BadInput(f"--set {shortened(text)}: expected key=value, as training.batch_size=2")
    try:
        nested: Any = parse_yaml(value)
    except yaml.YAMLError as error:
        problem = getattr(error, "problem", None) or error
        raise BadInput(f"--set {shortened(text)}: the value is not valid yaml: {problem}") from None
    for part in reversed(key.split(".")):
        nested = {part: nested}
    return nested


def _check_plain(value: Any, allowed: str) -> None:
    if isinstance(value, str | Path):
        text = str(value)
        if not text.strip():
            raise ValueError("a blank text, expected letters or digits")
        if any(category(letter) in _CONTROL and letter not in allowed for letter in text):
            raise ValueError("a text with control characters, expected none")
    elif isinstance(value, int) and not -(2**63) <= value < 2**64:
        raise ValueError("expected a number of at most 64 bits")
    elif isinstance(value, tuple | list | Mapping):
        for part in value:
            _check_plain(part, allowed)


def _first_line(
    model: type[BaseModel], error: ValidationError, content: Mapping[str, Any], paths: Sequence[Path],
    overrides: Sequence[str],
) -> str:  # fmt: skip
    # a misspelt key gives two errors, an unknown and a missing key: the unknown key helps more
    problem = min(error.errors(), key=lambda problem: problem["type"] != "extra_forbidden")
    where = _keys(content, problem["loc"], problem["type"] == "missing")
    key = ".".join(str(part) for part in where) or "(top level)"
    # the value is not shown for a missing key, nor for a mapping whose keys contradict each other
    is_whole = problem["type"] == "missing" or isinstance(problem["input"], Mapping)
    value = "" if is_whole else f"; it holds {shortened(repr(problem['input']))}"
    if problem["type"] == "extra_forbidden":
        value += f"; expected {_nearest(str(problem['loc'][-1]), _known_keys(model, problem['loc'][:-1]))}"
    if problem["type"].startswith("union_tag"):  # of a key that says which keys its mapping has, as `kind`
        key += f".{problem['ctx']['discriminator'].strip(chr(39))}"
    origin = _origin(where, paths, overrides)
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    return f"{origin}: {shortened(key)}: {_in_plain_words(problem)}{value}{more}"


def _in_plain_words(problem: Any) -> str:
    kind, about = problem["type"], problem.get("ctx", {})
    quoted = re.findall(r"'([^']*)'", about.get("expected_tags", problem["msg"]))
    if kind == "literal_error":
        return "expected one of " + ", ".join(quoted)
    if kind == "union_tag_invalid":
        return f"expected {_nearest(about['tag'], quoted)}; it holds {shortened(repr(about['tag']))}"
    plain = {"extra_forbidden": "unknown key"} | dict.fromkeys(("missing", "union_tag_not_found"), _MISSING)
    return plain.get(kind, problem["msg"].removeprefix("Value error, "))


def _nearest(key: str, known: Sequence[str]) -> str:
    """Return the names of all `known` keys for a message, the most similar to `key` first."""
    ratios = {name: difflib.SequenceMatcher(None, key[:80].lower(), name).ratio() for name in known}
    return "one of " + ", ".join(sorted(known, key=lambda name: -ratios[name])) if len(known) > 1 else "".join(known)


def _known_keys(model: type[BaseModel], location: Sequence[Any]) -> list[str]:
    """Return the keys of the settings at `location`, which pydantic gives: keys, indices, and tags of unions."""
    models = [model]
    for part in location:
        fields = [known.model_fields[part] for known in models if part in known.model_fields]
        if fields:
            models = [inner for field in fields for inner in _models_in(field.annotation)]
        elif tagged := [
            known
            for known in models
            if any(part in get_args(field.annotation) for field in known.model_fields.values())
        ]:
            models = tagged
    return list(dict.fromkeys(name for known in models for name in known.model_fields))


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in get_args(annotation) for model in _models_in(argument)]


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
            return f"--set {shortened(text)}"
    nodes = {path: parse_yaml_nodes(_text(path)) for path in reversed(paths)}
    for depth in range(len(where), 0, -1):
        for path, node in nodes.items():
            for line in _lines_of(node, where[:depth]):
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


_Bounded = Annotated[float, Field(ge=-1e6, le=1e6)]  # so that products and squares stay numbers in float32
Range = Annotated[tuple[_Bounded, _Bounded], AfterValidator(_ascending)]
Length = Annotated[int | float, Field(gt=0, le=1_000_000_000)]
"""nm: a voxel size, a block. Whole numbers stay integers."""
Distance = Annotated[int | float, Field(ge=0, le=1_000_000_000)]
"""nm, 0 as well."""
Lengths = tuple[Length, Length, Length]
NonNegative = Annotated[float, Field(ge=0, le=1e6)]
NonNegativeRange = Annotated[tuple[NonNegative, NonNegative], AfterValidator(_ascending)]
Probability = Annotated[float, Field(ge=0, le=1)]

_END = r"\s*(-?\d+(?:\.\d+)?|)\s*"
RANGE = re.compile(f"{_END}:{_END}")
_NOTHING = (None, "null", "~", "")  # as config.yaml and --config read it
EXPECTED_REGION = "expected three ranges in nm, as 0:1040,:,:"


def _region(value: Any) -> Any:
    """Return a region as text; raise ValueError for anything that is none."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        value = ",".join(_range(part) for part in value)
    if isinstance(value, str) and not is_region(value):
        raise ValueError(EXPECTED_REGION)
    return value


def _range(part: Any) -> str:
    if isinstance(part, Sequence) and not isinstance(part, str) and len(part) in (0, 2):
        return ":".join("" if end in _NOTHING else str(end) for end in part) or ":"
    return ":" if part in _NOTHING else str(part)


def is_region(text: str) -> bool:
    """Return whether a text is three ranges."""
    ranges = [RANGE.fullmatch(part) for part in text.split(",")]
    return len(ranges) == 3 and all(ranges)


Region = Annotated[str, BeforeValidator(_region)]
"""Begin and end of each axis in nm, `z0:z1,y0:y1,x0:x1`, or three of `[begin, end]`; open ends are the volume's."""


def as_options(settings: object, keys: "type[Settings] | Iterable[str]") -> list[str]:
    """Return the command-line words that pass settings on to a script.

    `min_seed_distance` becomes `--min-seed-distance VALUE`. Lengths along axes, or whole numbers, become one word,
    `z,y,x`; the members of other tuples become a word each. True becomes the option without a value; False and None
    become no words.

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
        elif isinstance(value, tuple) and (_are_lengths(settings, key) or {*map(type, value)} == {int}):
            words += [option, ",".join(map(str, value))]
        else:
            words += [option, *map(str, value if isinstance(value, tuple) else (value,))]
    return words


def _are_lengths(settings: Any, key: str) -> bool:
    fields = getattr(type(settings), "model_fields", {})
    return key in fields and fields[key].annotation in (Lengths, Lengths | None)
