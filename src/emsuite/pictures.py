"""The pictures of an evaluation as files, for pages other than its own report.

    curves/CURVE.svg
    sections/PLACE/PICTURE.jpg

Both folders lie in that of the scores.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from emsuite.curves import curves
from emsuite.evaluate import Evaluation
from emsuite.files import remove, write_text
from emsuite.sections import Section


def write_pictures(folder: Path, evaluation: Evaluation, sections: Sequence[Section]) -> None:
    """Write curves over the thresholds and sections below `folder`, in place of those that are there."""
    for name in ("curves", "sections"):
        remove(folder / name)
        (folder / name).mkdir(parents=True)
    for name, svg in curves(evaluation).items():
        write_text(folder / "curves" / f"{_file_name(name)}.svg", svg)
    for section in sections:
        place = folder / "sections" / _file_name(section.place)
        place.mkdir()
        for name, jpeg in section.pictures.items():
            (place / f"{_file_name(name)}.jpg").write_bytes(jpeg)


def _file_name(words: str) -> str:
    return re.sub(r"[^\w.-]+", "_", words).strip("_")
