"""Names of frames: the numbers of channel, slice, time and position in the name of a file.

order         im_c000_z003_t001_p012.png     the integers of a name, in the order of the letters c, z, t, p
sms           img_GFP_t001_p012_z003.tif     the name of a channel, then numbers behind letters
expression    (?P<c>\\d+)_of_(?P<p>\\d+)       named groups of a regular expression; `c` may be a name
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from emsuite.common.errors import BadInput

_LETTERS = "cztp"
_WORDS = {"c": "channel", "z": "slice", "t": "time", "p": "position"}
_SMS = re.compile(r"[^_]+_(?P<c>.+?)(?=(?:_[tpz]\d+)+$)(?P<rest>(?:_[tpz]\d+)+)")


class FrameIndex(NamedTuple):
    """Where a frame belongs; `channel` is a number, or the name that a file has."""

    channel: int | str
    slice: int
    time: int
    position: int


Parse = Callable[[str], FrameIndex | None]
"""Returns the index that the name of a file (without its ending) says, None if it says none."""


@dataclass(frozen=True)
class ByOrder:
    """Reads the four integers of a name, in the order of four letters such as `cztp`."""

    order: str = _LETTERS

    def __post_init__(self) -> None:
        if sorted(self.order) != sorted(_LETTERS):
            raise BadInput(f"order {self.order}: expected the letters c, z, t, p, each once, as cztp")

    def __call__(self, stem: str) -> FrameIndex | None:
        """See `Parse`."""
        numbers = re.findall(r"\d+", stem)
        if len(numbers) != len(self.order):
            return None
        by_letter = dict(zip(self.order, map(int, numbers), strict=True))
        return FrameIndex(*(by_letter[letter] for letter in _LETTERS))


def by_channel_name(stem: str) -> FrameIndex | None:
    """Read `img_<channel name>_t###_p###_z###`, the letters in any order, a missing one 0; see `Parse`."""
    match = _SMS.fullmatch(stem)
    if match is None:
        return None
    pairs = [(part[0], int(part[1:])) for part in match["rest"].strip("_").split("_")]
    numbers = dict(pairs)
    if len(numbers) != len(pairs):
        return None
    return FrameIndex(match["c"], *(numbers.get(letter, 0) for letter in "ztp"))


@dataclass(frozen=True)
class ByExpression:
    """Reads the groups c, z, t, p of a regular expression; a missing group is 0, `c` may be a name."""

    expression: str

    def __post_init__(self) -> None:
        try:
            groups = re.compile(self.expression).groupindex.keys()
        except re.error as error:
            raise BadInput(f"expression {self.expression}: no regular expression: {error}") from None
        if not groups or not groups <= set(_LETTERS):
            raise BadInput(
                f"expression {self.expression}: groups {', '.join(groups) or 'none'}, expected (?P<c>...), z, t, p"
            )

    def __call__(self, stem: str) -> FrameIndex | None:
        """See `Parse`; raise BadInput for a group z, t or p that is no whole number."""
        match = re.search(self.expression, stem)
        if match is None:
            return None
        texts = {letter: text for letter, text in match.groupdict().items() if text is not None}
        for letter in set(texts) - {"c"}:
            if not texts[letter].isdecimal():
                raise BadInput(f"{stem}: the {_WORDS[letter]} is {texts[letter]!r}, expected a whole number")
        channel = texts.get("c", "0")
        named: int | str = int(channel) if channel.isdecimal() else channel
        return FrameIndex(named, *(int(texts.get(letter, 0)) for letter in "ztp"))


def parser(name: str = "order", order: str = _LETTERS, expression: str | None = None) -> Parse:
    """Return the parser of names: `order`, `sms`, or a regular expression if there is one."""
    if expression is not None:
        return ByExpression(expression)
    return by_channel_name if name == "sms" else ByOrder(order)


def gaps(numbers: Iterator[int] | set[int]) -> list[int]:
    """Return the numbers that a series such as 0, 1, 3 lacks; 0, 2, 4 lacks none, its step is 2."""
    known = sorted(set(numbers))
    if len(known) < 3:
        return []
    step = min(after - before for before, after in pairwise(known))
    return sorted(set(range(known[0], known[-1] + 1, step)) - set(known))
