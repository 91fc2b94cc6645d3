"""Orders: what the plan asks of each step, as a file beside the step's output that Snakemake takes for an input.

    fragments.zarr.manifest.json    says, among others, by which order the fragments were made
    fragments.zarr.order.json       the order of today

An order is written anew, and is newer than all that was made before, if the output was made by another order, or its
files are not those that were written, or a stopped or refused step left it without a manifest. The step and all later
ones then run again. Snakemake's own memory in `.snakemake` is lost in a copied project, holds nothing of a step that
failed, and does not count for an intermediate file that is gone.
"""

import hashlib
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emsuite.common.documents import read_json
from emsuite.common.errors import BadInput
from emsuite.common.files import sha256, write_json
from emsuite.common.outputs import difference, manifest_path
from emsuite.io.fingerprint import is_as_seen
from emsuite.io.volume import MASK, array_names

_SECOND = 10**9


@dataclass(frozen=True)
class Order:
    """What is asked of one step.

    Args:
        asked: the settings, options and states of inputs that decide on the output, as JSON.
        outputs: the outputs of the step, or the records themselves where these are no manifests.
        is_volume: the output is a volume, which users may edit: a new order alone makes it again, never its files.
    """

    asked: str
    outputs: tuple[Path, ...]
    is_volume: bool = False

    @property
    def path(self) -> Path:
        """The file of the order, beside the first output."""
        return self.outputs[0].with_name(self.outputs[0].name + ".order.json")

    @property
    def files(self) -> list[str]:
        """The file of the order; nothing if it is not written."""
        return [str(self.path)] if self.path.exists() else []

    @property
    def digest(self) -> str:
        """A hash of what is asked, for the manifests of the outputs."""
        return hashlib.sha256(self.asked.encode("utf-8", "surrogateescape")).hexdigest()[:16]

    def write(self) -> None:
        """Write the file if it says something else, and make it newer than the outputs if they are not as ordered.

        Raises:
            BadInput: A volume would be made again that somebody has edited, or put arrays into.
        """
        if not os.access(_existing(self.path.parent), os.W_OK):
            return  # a shared folder of finished volumes, which no step can write either
        content = read_json(self.path)
        earlier = content if isinstance(content, dict) else None
        reason = self._reason(earlier)
        order = {"digest": self.digest, "asked": json.loads(self.asked)}
        if reason is not None:
            self._check_unedited()
            # the time makes a file that Snakemake takes for a new one, even if an earlier run has seen the same order
            write_json(self.path, order | {"because": reason, "renewed": time.time_ns()})
            return
        records = [_record(output) for output in self.outputs]
        if earlier is None or earlier.get("digest") != self.digest:
            write_json(self.path, order | {"taken_over": [sha256(record) for record in records if record.exists()]})
        if all(record.exists() for record in records):  # copies have new times, in any order
            oldest = min(record.stat().st_mtime_ns for record in records)
            if self.path.stat().st_mtime_ns >= oldest:
                os.utime(self.path, ns=(oldest - _SECOND, oldest - _SECOND))

    def _check_unedited(self) -> None:
        volume = self.outputs[0]
        content = read_json(_record(volume)) if self.is_volume and _record(volume) != volume else None
        content = content if isinstance(content, dict) else {}
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
                if output.exists() and not self.is_volume:
                    return f"{output.name}: its step was stopped"
                continue
            content = read_json(record)
            content = content if isinstance(content, dict) else {}
            about = content.get("provenance", content)
            made_by = about.get("order") if isinstance(about, dict) else None
            if made_by is None and (earlier is None or _took_over(earlier, record, self.digest)):
                continue  # made by hand, or by a version without orders, before the workflow asked for anything
            if made_by != self.digest:
                return f"{output.name}: made with other settings or inputs"
            if not self.is_volume and output != record and output.exists():
                changed = difference(output, content.get("written"))
                if changed:
                    return f"{output.name}: {changed}"
        return None


def _took_over(earlier: dict[str, Any], record: Path, digest: str) -> bool:
    taken = earlier.get("taken_over")
    return earlier.get("digest") == digest and isinstance(taken, list) and sha256(record) in taken


def _record(output: Path) -> Path:
    return output if output.suffix == ".json" else manifest_path(output)


def _existing(folder: Path) -> Path:
    return next(part for part in (folder, *folder.parents) if part.exists())
