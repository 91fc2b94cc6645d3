"""Orders: what the plan asks of each step, as a file beside the step's output that Snakemake takes for an input.

    fragments.zarr.manifest.json    says, among others, by which order the fragments were made, and from which inputs
    fragments.zarr.order.json       the order of today

The digest of an order counts the orders of the steps before, so that results of other settings show even where the
outputs between were deleted. The manifest names the runs that made its inputs, see `origins`: a step that was made anew
by the same order shows too.

An order is written anew, and is newer than all that was made before, if the output was made by another order or from
other inputs, or its files are not those that were written, or a stopped or refused step left it without a manifest. The
step and all later ones then run again. The order asks for its step until the manifest is there; later, it tells from
which inputs an output was made that somebody has removed. Otherwise the outputs are made as new as their inputs: copies
have new times, in any order. Snakemake's own memory in `.snakemake` is lost in a copied project, holds nothing of a
step that failed, and does not count for an intermediate file that is gone.
"""

import contextlib
import errno
import functools
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emsuite.common.documents import read_json
from emsuite.common.errors import BadInput
from emsuite.common.files import sha256, write_json
from emsuite.common.outputs import manifest_path, unfinished_path
from emsuite.common.state.origins import ended, identity_of
from emsuite.common.state.written import difference
from emsuite.io.fingerprint import is_as_seen
from emsuite.io.volume import MASK, array_names

_SECOND = 10**9
_NO_OTHER = "made with other settings or inputs"
_PENDING = "because", "renewed"
"""Keys of the file of an order that asks for its step to run."""


def order_of(asked: Mapping[str, Any], *outputs: Path, **more: Any) -> "Order":
    """Return the order of a step; `asked` becomes JSON, further arguments are those of `Order`."""
    return Order(json.dumps(asked, sort_keys=True, default=str), outputs, **more)


@dataclass(frozen=True)
class Order:
    """What is asked of one step.

    Args:
        asked: the settings, options and states of inputs that decide on the output, as JSON.
        outputs: the outputs of the step, or the records themselves where these are no manifests.
        is_volume: the output is a volume, which users may edit: a new order alone makes it again, never its files.
        after: the orders of the steps before.
        reads: the outputs of these steps whose runs the manifest names, see `origins`.
        beside: other files and folders that the step writes, among them its benchmark, which Snakemake counts too.
        is_asked: whether a manifest without an order, written by hand or by an earlier version, records what is asked.
    """

    asked: str
    outputs: tuple[Path, ...]
    is_volume: bool = False
    after: tuple["Order", ...] = ()
    reads: tuple[Path, ...] = ()
    beside: tuple[Path, ...] = ()
    is_asked: Callable[[Mapping[str, Any]], bool] | None = None

    @property
    def path(self) -> Path:
        """The file of the order, beside the first output."""
        return self.outputs[0].with_name(self.outputs[0].name + ".order.json")

    @property
    def files(self) -> list[str]:
        """The file of the order; nothing if it is not written."""
        return [str(self.path)] if self.path.exists() else []

    @property
    def is_due(self) -> bool:
        """Whether the file, as it was written, asks for the step to run."""
        content = read_json(self.path)
        return isinstance(content, dict) and _PENDING[0] in content

    @functools.cached_property
    def digest(self) -> str:
        """A hash of what is asked here and of the steps before, for the manifests of the outputs."""
        before = [order.digest for order in self.after]
        return _hash(self.asked + json.dumps(before) if before else self.asked)

    def write(self) -> None:
        """Write the file if it says something else, and bring the times in the order that the contents ask for.

        Orders of the steps before must be written first.

        Raises:
            BadInput: A volume would be made again that somebody has edited, or put arrays into.
        """
        if not os.access(_existing(self.path.parent), os.W_OK):
            return  # a shared folder of finished volumes, which no step can write either
        content = read_json(self.path)
        earlier = content if isinstance(content, dict) else None
        reason = self._reason(earlier)
        told, known = {"digest": self.digest, "asked": json.loads(self.asked)}, (earlier or {}).get("reads")
        read = {"reads": known} if isinstance(known, dict) else {}
        if reason is not None:
            self._check_unedited()
            # the time makes a file that Snakemake takes for a new one, even if an earlier run has seen the same order
            write_json(self.path, told | read | {"because": reason, "renewed": time.time_ns()})
            return
        kept = earlier
        if kept is None or kept.get("digest") != self.digest:
            kept = told | {"taken_over": [sha256(record) for record in self._records()]} | read
        if len(list(self._records())) == len(self.outputs):
            kept = {key: value for key, value in kept.items() if key not in _PENDING}
            kept |= {"reads": read.get("reads", {}) | self._identities()}
        if kept != earlier:
            write_json(self.path, kept)
        with contextlib.suppress(PermissionError):  # the files of other users keep their times
            self._bring_times_in_order()

    def _bring_times_in_order(self) -> None:
        """Make the file older than all that the step wrote, and this as new as its inputs."""
        marks = (folder / ".snakemake_timestamp" for folder in self.beside)
        written = [*self._records(), *(file for file in (*self.beside, *marks) if file.exists())]
        if not written:
            return
        oldest = min(file.stat().st_mtime_ns for file in written)
        if self.path.stat().st_mtime_ns >= oldest:
            os.utime(self.path, ns=(oldest - _SECOND, oldest - _SECOND))
        if self.is_volume and any("arrays" not in _content(record) for record in self._records()):
            return  # of an earlier version, which tells by its time what was edited since
        newest = max((read.stat().st_mtime_ns for order in self.after for read in order._records()), default=0)
        for file in written:
            if file.stat().st_mtime_ns < newest:
                os.utime(file, ns=(newest, newest))

    def _records(self) -> Iterator[Path]:
        return (record for record in map(_record, self.outputs) if record.exists())

    def _check_unedited(self) -> None:
        volume = self.outputs[0]
        content = _content(_record(volume)) if self.is_volume and _record(volume) != volume else {}
        arrays = content.get("arrays")
        if not isinstance(arrays, dict) or not volume.exists():
            return
        edited = [name for name, kept in arrays.items() if not is_as_seen(volume / name, kept)]
        if "contents" not in content:  # downloads hold more arrays than the two that are looked at
            edited += [name for name in array_names(volume) if name not in (*arrays, MASK)]
        if edited:
            raise BadInput(
                f"{volume}: the data set asks for another volume, but {', '.join(edited)} was edited or added here; "
                "move the volume away, or take the former settings back"
            )

    def _reason(self, earlier: dict[str, Any] | None) -> str | None:
        """Return why the step must run again; None if it need not, or if Snakemake knows best."""
        for output in self.outputs:
            record = _record(output)
            if not record.exists():
                is_begun = unfinished_path(output).exists() or (output.exists() and not self.is_volume)
                if is_begun or (_PENDING[0] in (earlier or {}) and (earlier or {}).get("digest") == self.digest):
                    return f"{output.name}: its step was stopped"
                if other := self._read_earlier(earlier):
                    return f"{output.name}: made from another {other.name}"
                continue
            why_not = self._why_not(_content(record), record, earlier)
            if why_not is None and not self.is_volume and output != record and output.exists():
                why_not = difference(output, _content(record).get("written"))
            if why_not is not None:
                return f"{output.name}: {why_not}"
        return None

    def _why_not(self, content: dict[str, Any], record: Path, earlier: dict[str, Any] | None) -> str | None:
        """Return why an output is not what is asked for, by its record; None if it is."""
        about = content.get("provenance", content)
        about = about if isinstance(about, dict) else {}
        made_by, origins = about.get("order"), about.get("made_from")
        if made_by is None and self.is_volume:  # a volume of the user's own
            return None if earlier is None or _took_over(earlier, record, self.digest) else _NO_OTHER
        if made_by is None and (self.is_asked is None or not self.is_asked(about)):
            return "made without the workflow, and not known to be what is asked for"
        is_earlier = made_by == _hash(self.asked) and not isinstance(origins, dict)  # orders stood for one step alone
        if made_by not in (None, self.digest) and not is_earlier:
            return _NO_OTHER
        if isinstance(origins, dict):
            return self._other_inputs(set(map(str, origins.values())))
        return None if made_by == self.digest else self._later_inputs(about)

    def _other_inputs(self, origins: set[str]) -> str | None:
        """Return which input is another than the one that the output was made from."""
        runs = {path: identity_of(path) for path in self.reads}
        others = [path.name for path, run in runs.items() if run is not None and run not in origins]
        return f"made from another {others[0]}" if others else None

    def _identities(self) -> dict[str, str]:
        """Return which runs made the inputs, by their paths, as far as these have records."""
        known = {str(path): identity_of(path) for path in self.reads}
        return {path: run for path, run in known.items() if run is not None}

    def _read_earlier(self, earlier: dict[str, Any] | None) -> Path | None:
        """Return an input that another run has made than when the output, gone by now, was last in order."""
        kept = (earlier or {}).get("reads")
        known, now = kept if isinstance(kept, dict) else {}, self._identities()
        others = (path for path in self.reads if str(path) in known and known[str(path)] != now.get(str(path)))
        return next((path for path in others if str(path) in now), None)

    def _later_inputs(self, about: Mapping[str, Any]) -> str | None:
        """Return which input was made later than the output, by their records, which copies do not change."""
        end = ended(about)
        for path in self.reads:
            content = _content(_record(path))
            told = content.get("provenance", content)
            later = ended(told if isinstance(told, dict) else {})
            if end is not None and later is not None and later > end + 1:  # records round to seconds
                return f"made before {path.name}"
        return None


def _took_over(earlier: dict[str, Any], record: Path, digest: str) -> bool:
    taken = earlier.get("taken_over")
    return earlier.get("digest") == digest and isinstance(taken, list) and sha256(record) in taken


def _record(output: Path) -> Path:
    return output if output.suffix == ".json" else manifest_path(output)


def _content(record: Path) -> dict[str, Any]:
    if record.exists() and not os.access(record, os.R_OK):  # of another user: it is not gone
        raise PermissionError(errno.EACCES, "is there and may not be read", str(record))
    content = read_json(record)
    return content if isinstance(content, dict) else {}


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:16]


def _existing(folder: Path) -> Path:
    return next(part for part in (folder, *folder.parents) if part.exists())
