"""Results that are to be published: their records without what tells of the user and the machine.

*.manifest.json, *.masks.json    records, without their private part
scores.json                      holds one, under `provenance`
checkpoint_*.pt                  those of earlier versions hold one whole
events.out.tfevents.*            TensorBoard's files have the host's name in theirs
"""

import json
import re
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from emsuite.common.errors import BadInput
from emsuite.common.files import write_json
from emsuite.common.outputs import read_json
from emsuite.common.provenance import published, reproducible
from emsuite.training import checkpoint as checkpoints

_RECORDS = ("*.manifest.json", "*.masks.json")
_OF_WORKFLOWS = ("*.order.json", "*.unfinished.json")
"""What a workflow keeps beside outputs, with absolute paths; outside its project it is of no use."""
_EVENTS = re.compile(r"(events\.out\.tfevents\.\d+)\.(.+)(\.\d+\.\d+)")
_UNNAMED = "host"
_TEXTS = {".csv", ".html", ".json", ".log", ".svg", ".tsv", ".txt", ".yaml", ".yml"}


def release(folder: Path) -> tuple[list[Path], list[Path]]:
    """Remove the private part of all records below `folder`, and orders of workflows; a second call changes nothing.

    Args:
        folder: A copy of results, of the checkpoints of a network, or of both.

    Returns:
        The files that were changed or removed, and the texts that still tell of a host, a home or a folder that the
        records or this machine name, as logs do.

    Raises:
        BadInput: There is no such folder, or a checkpoint in it is damaged.
    """
    if not folder.is_dir():
        raise BadInput(f"{folder}: no such folder; expected a copy of results")
    changed, words = list[Path](), {socket.gethostname(), str(Path.home())}
    for path, content, record in _records(folder):
        words |= _private_words(record)
        public = published(record)
        if public != record:
            write_json(path, public if record is content else content | {"provenance": public})
            changed.append(path)
    for path in sorted(folder.rglob("checkpoint_*.pt")):
        checkpoint = checkpoints.read(path)
        words |= _private_words(checkpoint.provenance)
        public = reproducible(checkpoint.provenance)
        if public != checkpoint.provenance:
            checkpoints.write(path, replace(checkpoint, provenance=public))
            changed.append(path)
    changed += _rename_events(folder)
    for path in sorted(path for pattern in _OF_WORKFLOWS for path in folder.rglob(pattern)):
        path.unlink()
        changed.append(path)
    return changed, [path for path in _texts(folder) if _tells(path, words)]


def _records(folder: Path) -> Iterator[tuple[Path, Any, dict[str, Any]]]:
    """Yield path and content of each JSON file with a record, and the record."""
    for path in sorted(path for pattern in _RECORDS for path in folder.rglob(pattern)):
        content = read_json(path)
        if isinstance(content, dict):
            yield path, content, content
    for path in sorted(folder.rglob("scores.json")):
        content = read_json(path)
        if isinstance(content, dict) and isinstance(content.get("provenance"), dict):
            yield path, content, content["provenance"]


def _private_words(record: dict[str, Any]) -> set[str]:
    """Return the names of the host and of the folder in a record, also in one of an earlier version."""
    parts = [record.get(key) for key in ("private", "machine")]
    found = [part.get(key) for part in parts if isinstance(part, dict) for key in ("host", "folder")]
    return {word for word in found if isinstance(word, str)}


def _rename_events(folder: Path) -> list[Path]:
    renamed = []
    for path in sorted(folder.rglob("events.out.tfevents.*")):
        match = _EVENTS.fullmatch(path.name)
        if match and match[2] != _UNNAMED:
            renamed.append(path.rename(path.with_name(f"{match[1]}.{_UNNAMED}{match[3]}")))
    return renamed


def _texts(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix in _TEXTS and path.is_file())


def _tells(path: Path, words: set[str]) -> bool:
    """Whether a text holds one of `words`, not as a part of a longer one."""
    either = "|".join(re.escape(form) for word in words for form in {word, json.dumps(word)[1:-1]})
    text = path.read_text(encoding="utf-8", errors="replace")
    return re.search(rf"(?<![\w.-])(?:{either})(?![\w-])", text) is not None
