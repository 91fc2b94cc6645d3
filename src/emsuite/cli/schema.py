"""Command-line options from a settings class, without importing it.

Importing pydantic takes longer than a script's whole `--help`. So the class is read from its source: each key

    debris: int = Field(64, ge=0, description="Smaller pieces are no seeds, voxels.")

becomes the option `--debris` with the type, default, limits and help of the key. The types of keys can be int, float,
bool, str, Literal, tuples of numbers, any of these or None, and names that the module of the class gives to such types.
"""

import ast
from collections.abc import Callable, Iterator
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import click

from emsuite.cli.types import Lengths, Voxels

_NUMBERS = {"PositiveInt": ("int", 1), "NonNegativeInt": ("int", 0)}
_LIMITS = {"ge": "low", "le": "high", "gt": "low", "lt": "high"}


class SchemaOption(click.Option):
    """An option that stands for a key of a settings class."""


class Kind(NamedTuple):
    """The type of a key: `name` is int, float, bool, str, choice or tuple."""

    name: str
    low: float | None = None
    high: float | None = None
    low_open: bool = False
    high_open: bool = False
    members: tuple[Any, ...] = ()
    """The choices, or the kinds of a tuple's members."""

    def limited(self, limits: dict[str, Any]) -> "Kind":
        """Return the kind with the limits of a `Field(ge=..., ...)`."""
        changes: dict[str, Any] = {}
        for word, side in _LIMITS.items():
            if word in limits:
                changes |= {side: limits[word], f"{side}_open": word in ("gt", "lt")}
        return self._replace(**changes)

    def click_type(self) -> Any:
        """Return the type as click knows it."""
        if self.name == "choice":
            return click.Choice(list(self.members))
        if self.name == "tuple":
            kinds = {member.name for member in self.members}
            if kinds == {"length"}:
                return Lengths()
            if kinds == {"int"}:
                return Voxels(with_zero=all(member.low == 0 for member in self.members))
            return tuple(member.click_type() for member in self.members)
        if self.name in ("int", "float") and (self.low is not None or self.high is not None):
            limited: Any = click.IntRange if self.name == "int" else click.FloatRange
            return limited(self.low, self.high, min_open=self.low_open, max_open=self.high_open)
        return {"int": int, "float": float, "bool": bool, "str": str}[self.name]


class Key(NamedTuple):
    """One key of a settings class."""

    name: str
    kind: Kind
    default: Any
    description: str

    def option(self) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Return a decorator that gives a script the option of this key."""
        default, name = self.default, "--" + self.name.replace("_", "-")
        if self.kind.name == "bool":
            return click.option(name, cls=SchemaOption, is_flag=True, default=default, help=self.description)
        kind = self.kind.click_type()
        if isinstance(kind, Lengths | Voxels) and default is not None:
            default = ",".join(map(str, default))
        return click.option(name, cls=SchemaOption, type=kind, default=default, help=self.description)


def keys_of(module: str, name: str) -> list[Key]:
    """Return the keys of the class `name` in `module`, in order; keys of its bases in the same module come first."""
    classes, aliases = _definitions(module)
    return list(_keys(classes[name], classes, aliases))


def options_of(module: str, name: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return a decorator that gives a script one option for each key of a settings class.

    Args:
        module: the module of the class, as `emsuite.segmentation.settings`; it is read, not imported.
        name: the class, as `FragmentSettings`.
    """

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for key in reversed(keys_of(module, name)):
            command = key.option()(command)
        return command

    return decorate


def _tree(module: str) -> ast.Module:
    spec = find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    return ast.parse(Path(spec.origin).read_text(encoding="utf-8"))


@lru_cache
def _definitions(module: str) -> tuple[dict[str, ast.ClassDef], dict[str, ast.expr]]:
    """Return the classes of a module, and the values of the names that it assigns, both by name."""
    tree = _tree(module)
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    aliases = {node.targets[0].id: node.value for node in tree.body
               if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)}  # fmt: skip
    return classes, aliases


def _keys(node: ast.ClassDef, classes: dict[str, ast.ClassDef], aliases: dict[str, ast.expr]) -> Iterator[Key]:
    for base in node.bases:
        if isinstance(base, ast.Name) and base.id in classes:
            yield from _keys(classes[base.id], classes, aliases)
    for part in node.body:
        if isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name):
            default, field = _field(part.value)
            kind = _kind(part.annotation, aliases).limited(field)
            yield Key(part.target.id, kind, default, field.get("description", ""))


def _field(value: ast.expr | None) -> tuple[Any, dict[str, Any]]:
    """Return the default of a key and the keywords of its `Field(...)`."""
    if not isinstance(value, ast.Call):
        return (None if value is None else ast.literal_eval(value)), {}
    words = {word.arg: ast.literal_eval(word.value) for word in value.keywords if word.arg}
    return (ast.literal_eval(value.args[0]) if value.args else words.get("default")), words


def _kind(node: ast.expr, aliases: dict[str, ast.expr]) -> Kind:
    if isinstance(node, ast.Name):
        if node.id == "Lengths":  # of `emsuite.common.settings`
            return Kind("tuple", members=(Kind("length"),) * 3)
        if node.id in aliases:
            return _kind(aliases[node.id], aliases)
        name, low = _NUMBERS.get(node.id, (node.id, None))
        return Kind(name, low=low)
    if isinstance(node, ast.BinOp):  # X | None
        return _kind(node.left, aliases)
    assert isinstance(node, ast.Subscript), ast.dump(node)
    assert isinstance(node.value, ast.Name), ast.dump(node)
    parts = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
    if node.value.id == "Literal":
        return Kind("choice", members=tuple(ast.literal_eval(part) for part in parts))
    if node.value.id == "Annotated":
        kind = _kind(parts[0], aliases)
        for part in parts[1:]:
            if isinstance(part, ast.Call) and isinstance(part.func, ast.Name) and part.func.id == "Field":
                kind = kind.limited(_field(part)[1])
        return kind
    assert node.value.id == "tuple", ast.dump(node)
    return Kind("tuple", members=tuple(_kind(part, aliases) for part in parts))


def names_in(module: str, table: str) -> list[str]:
    """Return the keys of a dict that `module` defines at its top as `table: ... = {"name": ..., ...}`."""
    for node in _tree(module).body:
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        if isinstance(target, ast.Name) and target.id == table:
            value = getattr(node, "value", None)
            assert isinstance(value, ast.Dict), f"{module}.{table} is no dict"
            return [ast.literal_eval(key) for key in value.keys if key is not None]
    raise LookupError(f"{module} has no {table}")
