"""The keys of a microDL configuration, each taken over, left out for a reason, or told as unknown.

keys = Keys(content, Path("config.yml"), notes)
keys.take("batch_size", int)                      the value; BadInput if it is no whole number
keys.leave("verbose", "not needed")               a note, if the key is there
keys.finish()                                     a note for each key that nobody has asked for
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from emsuite.common.errors import BadInput

_EXPECTED = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    list: "a list",
    dict: "keys with values",
}


class Note(NamedTuple):
    """A key that is not carried over, or not as it is, and why."""

    key: str
    value: Any
    why: str

    def __str__(self) -> str:
        value = str(self.value)
        return f"{self.key}: {value if len(value) <= 60 else value[:57] + '...'}: {self.why}"


@dataclass
class Notes:
    """What a translation tells of keys, in the order in which it came to them."""

    notes: list[Note] = field(default_factory=list)

    def add(self, key: str, value: Any, why: str) -> None:
        """Tell that a key is not carried over, or not as it is."""
        self.notes.append(Note(key, value, why))


class Keys:
    """A mapping of a configuration, with the path of keys that leads to it."""

    def __init__(self, content: Mapping[str, Any], file: Path, notes: Notes, above: str = ""):
        self._content, self._file, self._notes, self._above = content, file, notes, above
        self._asked: set[str] = set()

    def __contains__(self, key: str) -> bool:
        return self._content.get(key) is not None

    def take(self, key: str, *kinds: type, default: Any = None) -> Any:
        """Return the value of a key; raise BadInput if it is of none of the kinds, None and a missing key aside."""
        self._asked.add(key)
        value = self._content.get(key)
        if value is None:
            return default
        if not any(_is(value, kind) for kind in kinds):
            expected = " or ".join(_EXPECTED[kind] for kind in kinds)
            raise BadInput(f"{self._file}: {self._path(key)} holds {value!r}, expected {expected}")
        return value

    def one_of(self, key: str, names: Mapping[str, str], fallback: str, what: str) -> str | None:
        """Return what a word stands for, without regard to upper case; None for a missing key.

        Args:
            key: the key.
            names: the words of microDL, in lower case, and what they are here.
            fallback: is returned, and told, for a word that is none of them.
            what: a word is, for the note.
        """
        word = self.take(key, str)
        if word is None or word.lower() in names:
            return None if word is None else names[word.lower()]
        self.tell(
            key, f"no such {what} here (there are {', '.join(dict.fromkeys(names.values()))}); {fallback} instead"
        )
        return fallback

    def section(self, key: str) -> "Keys":
        """Return the mapping below a key; an empty one if the key is missing."""
        return Keys(self.take(key, dict, default={}), self._file, self._notes, self._path(key) + ".")

    def leave(self, key: str, why: str) -> None:
        """Tell why a key is not carried over, if it is there."""
        self._asked.add(key)
        if key in self:
            self.tell(key, why)

    def leave_all(self, reasons: Mapping[str, str]) -> None:
        """Tell of each key that is there why it is not carried over."""
        for key, why in reasons.items():
            self.leave(key, why)

    def tell(self, key: str, why: str) -> None:
        """Tell how a key is carried over, or why not."""
        self._notes.add(self._path(key), self._content.get(key), why)

    def finish(self) -> None:
        """Tell of every key that nobody has asked for."""
        for key in self._content:
            if key not in self._asked:
                self.tell(str(key), "no key of microDL that is known here")

    def _path(self, key: str) -> str:
        return self._above + key


def _is(value: Any, kind: type) -> bool:
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, kind) and not (kind is int and isinstance(value, bool))
