"""Texts, JSON and yaml, read within limits, whoever wrote them.

A file may be a pipe that nobody writes to, or a device without end; a few lines of yaml can repeat each other a billion
times; a nest can be deeper than Python's stack. Each gets one line, or, as JSON, counts as no JSON.
"""

import json
import os
import stat
from pathlib import Path
from typing import Any

import yaml

from emsuite.common.errors import BadInput

_MOST_BYTES = 64 * 2**20
"""Of a text that is read at once."""
_MOST_NODES = 50_000
"""Values of a yaml text."""
_MOST_LEVELS = 50
_MOST_DIGITS = 400
_TAG = "tag:yaml.org,2002:"
_NO_JSON = {_TAG + kind for kind in ("timestamp", "binary", "set", "omap", "pairs")}


def check_regular(path: Path, expected: str) -> None:
    """Raise BadInput unless `path` is a file: a pipe would be waited for, a device may never end.

    Args:
        path: the file, or a link to it.
        expected: what the message asks for, as "a checkpoint".
    """
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        raise BadInput(f"{path}: no such file; expected {expected}") from None
    except (OSError, ValueError) as error:
        raise BadInput(f"{path}: {getattr(error, 'strerror', None) or error}; expected {expected}") from None
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "no regular file"
        raise BadInput(f"{path}: is {kind}; expected {expected}")


def read_text(path: Path, expected: str, most_bytes: int = _MOST_BYTES) -> str:
    """Return the text of a file in UTF-8.

    Args:
        path: the file.
        expected: what the message asks for, as "a table of losses".
        most_bytes: a longer file is refused.

    Raises:
        BadInput: it is no file, cannot be read, is too long, or holds no text.
    """
    check_regular(path, expected)
    try:
        with open(path, "rb") as file:
            content = file.read(most_bytes + 1)
        if len(content) > most_bytes:
            raise BadInput(f"{path}: longer than {most_bytes} bytes; expected {expected}")
        return content.decode("utf-8")
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror}; expected {expected}") from None
    except UnicodeDecodeError as error:
        raise BadInput(f"{path}: is no text in UTF-8 (byte {error.start}); expected {expected}") from None


def read_json(path: Path) -> Any:
    """Return the content of a JSON file, or None if there is no such file or it holds no JSON."""
    try:
        return json.loads(read_text(path, "JSON"))
    except (BadInput, ValueError, RecursionError):
        return None


class _Limited:
    """Composes nodes of yaml within limits: of depth, and of values, which count as often as aliases repeat them."""

    _levels = _nodes = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        mark = self.peek_event().start_mark  # type: ignore[attr-defined]
        self._levels, self._nodes = self._levels + 1, self._nodes + 1
        if self._levels > _MOST_LEVELS:
            raise yaml.MarkedYAMLError(problem=f"nested deeper than {_MOST_LEVELS} levels", problem_mark=mark)
        node = super().compose_node(parent, index)  # type: ignore[misc]
        if not hasattr(node, "weight"):
            raise yaml.MarkedYAMLError(problem="an alias stands within its own anchor", problem_mark=mark)
        if max(self._nodes, node.weight) > _MOST_NODES:
            raise yaml.MarkedYAMLError(problem=f"more than {_MOST_NODES} values", problem_mark=mark)
        self._levels -= 1
        return node

    def compose_scalar_node(self, anchor: Any) -> Any:
        node = super().compose_scalar_node(anchor)  # type: ignore[misc]
        node.weight = 1 + len(node.value) // 64
        return node

    def compose_sequence_node(self, anchor: Any) -> Any:
        node = super().compose_sequence_node(anchor)  # type: ignore[misc]
        node.weight = 1 + sum(part.weight for part in node.value)
        return node

    def compose_mapping_node(self, anchor: Any) -> Any:
        node = super().compose_mapping_node(anchor)  # type: ignore[misc]
        node.weight = 1 + sum(key.weight + value.weight for key, value in node.value)
        seen = set[str]()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                raise yaml.MarkedYAMLError(problem=f"the key '{key.value}' is there twice", problem_mark=key.start_mark)
            seen.add(key.value)
        return node


class _TextLoader(_Limited, yaml.BaseLoader):
    """Reads every value as a text."""


class _Loader(_Limited, yaml.SafeLoader):
    """Reads the values that JSON knows. A date stays a text: no setting is one, and a volume may be called so."""

    yaml_implicit_resolvers = {  # noqa: RUF012 (as in its base)
        first: [(tag, pattern) for tag, pattern in resolvers if tag not in _NO_JSON]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        kind = node.tag.removeprefix(_TAG)
        is_long = kind in ("int", "float") and len(node.value) > _MOST_DIGITS
        try:
            if is_long or node.tag in _NO_JSON:
                raise ValueError
            return super().construct_object(node, deep)
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
            value = f"'{shortened(node.value)}'" if isinstance(node, yaml.ScalarNode) else "this"
            problem = f"{value} is no {kind}" if node.tag not in _NO_JSON else f"!!{kind} is no kind of a setting"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark) from None


def parse_yaml(text: str, texts_only: bool = False) -> Any:
    """Return the content of a yaml text; with `texts_only`, every value as a text.

    Raise yaml.YAMLError for anything else, for a key that stands twice, for too many values, and for too deep a nest.
    """
    return yaml.load(text, _TextLoader if texts_only else _Loader)


def parse_yaml_nodes(text: str) -> Any:
    """Return the node at the top of a yaml text, which tells lines; raise yaml.YAMLError as `parse_yaml`."""
    return yaml.compose(text, _Loader)


def shortened(text: str, most: int = 80) -> str:
    """Return a text for a message: its first `most` characters."""
    return text if len(text) <= most else text[:most] + "..."
