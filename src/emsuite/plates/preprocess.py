"""A plate into one that is ready for training, by the steps of a file; see `settings`.

    out/plate.zarr               the corrected images (T, C, Z, Y, X), their labels/foreground and border_weights
    out/flat_field/              flat-field_channel-N.npy, N the number in the input; -N.json: the channel's name
    out/statistics.csv           of the data set, its positions and its volumes
    out/tiles.csv                of the tiles with enough foreground
    out/split.json               which values train, validate and test
    out/preprocessing.json       each step: its settings and its results, or that it was not asked for
    out.manifest.json

Positions are written one by one, on several threads; a stopped run continues behind those that were complete.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from emsuite.common.errors import BadInput
from emsuite.common.files import remove, write_json
from emsuite.common.outputs import is_finished, output
from emsuite.common.progress import progress
from emsuite.io.fingerprint import origin_of
from emsuite.io.volume import fingerprint
from emsuite.plates.correct_positions import Correction, Written, empty_of, volumes_of
from emsuite.plates.flat_field import (
    Light,
    SumOfImages,
    estimate_flat_field,
    read_flat_field,
    sum_of_images,
    write_flat_field,
)
from emsuite.plates.plate import (
    MASK,
    Plate,
    ZarrPlate,
    check_equal_sizes,
    check_outside,
    create_plate,
    in_threads,
    open_plate,
)
from emsuite.plates.selection import Selection
from emsuite.plates.settings import PreprocessSettings
from emsuite.plates.split import PARTS, check_meant, meant_by, read_split, split_values, values_of, write_split
from emsuite.plates.statistics import Empty, Row, Where, measure, write_statistics
from emsuite.plates.tiles import kept_tiles, tile_rows, tiles_of

_STEPS = ("flat_field", "resize", "masks", "border_weights", "clip", "clahe", "normalize", "tiles", "split")
_log = logging.getLogger(__name__)


def preprocess(settings: PreprocessSettings, workers: int = 1) -> bool:
    """Write the preprocessed plate into the folder `settings.output`.

    Args:
        settings: the steps.
        workers: threads; the result does not depend on them.

    Returns:
        Whether anything was written; a whole output of the same settings and input is left alone.

    Raises:
        BadInput: an input is missing or odd, a channel has no images or constant ones, a mask is empty, an image holds
            NaN, or a setting does not fit the plate.
    """
    run = _Run.of(settings, workers)
    out, inputs = settings.output, inputs_of(settings)
    for source in inputs.values():
        check_outside(out, source)
    record = _record(settings, inputs)
    if is_finished(out, record):
        return False
    with output(out, record, inputs=inputs, fingerprint=fingerprint) as made:
        done = out / "done"
        if not (made.resumed and done.exists()):
            made.clear()
            create_plate(out / "plate.zarr", run.plate.positions)
            done.mkdir()
        run.write(done)
        remove(done)
        made.everything = True
    return True


def is_preprocessed(settings: PreprocessSettings) -> bool:
    """Return whether `settings.output` is whole, and made by these steps from what its inputs are now."""
    return is_finished(settings.output, _record(settings, inputs_of(settings)))


def inputs_of(settings: PreprocessSettings) -> dict[str, Path]:
    """Return everything that is read, by name."""
    s = settings
    paths = {"input": s.input, "masks": s.masks.folder if s.masks else None}
    paths |= {
        "flat_field": s.flat_field.folder if s.flat_field else None,
        "split": s.split.file if s.split else None,
    }
    return {name: path for name, path in paths.items() if path is not None}


def _record(settings: PreprocessSettings, inputs: Mapping[str, Path]) -> dict[str, Any]:
    """Return all that decides the bytes."""
    steps = settings.model_dump(mode="json", exclude={"input", "output"})
    return steps | {"origins": {name: origin_of(path) for name, path in inputs.items()}}


@dataclass(frozen=True)
class _Run:
    """The steps of one output, and what each of them tells."""

    settings: PreprocessSettings
    workers: int
    plate: Selection
    masks_from: Plate | None
    results: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, settings: PreprocessSettings, workers: int) -> "_Run":
        """Open the plate and the masks from elsewhere."""
        chosen, masks_from = settings, None
        plate = Selection(open_plate(chosen.input), chosen.positions, chosen.channels, chosen.times, chosen.slices)
        if chosen.masks and chosen.masks.folder:
            masks, picked = open_plate(chosen.masks.folder), chosen.masks.channels or "all"
            if missing := [name for name in plate.positions if name not in masks.positions]:
                raise BadInput(f"{masks.path}: has no masks of position {missing[0]}, expected some for each")
            masks_from = Selection(masks, plate.positions, picked)
        run = cls(settings, workers, plate, masks_from)
        run.check()
        return run

    def check(self) -> None:
        """Raise BadInput for a step whose channels are not kept, and for masks that are missing, before all steps."""
        s = self.settings
        for step in (s.flat_field, s.clip, s.clahe, None if self.masks_from else s.masks):
            if step is not None:
                self.plate.chosen_channels(step.channels)
        for position in self.plate.positions if self.masks_from else ():
            Correction(s, self.plate, self.masks_from).mask_places(position)

    def write(self, done: Path) -> None:
        """Write everything, the positions that an earlier run has not, and all that follows from them."""
        s, out = self.settings, self.settings.output
        correction = Correction(s, self.plate, self.masks_from, self._flat_fields())
        correction = replace(correction, limits=self._limits(correction))
        written = in_threads(
            lambda position: correction.write(position, out / "plate.zarr", done),
            self.plate.positions,
            self.workers,
            "correct",
        )
        self._check_masks(written)
        plate = ZarrPlate(out / "plate.zarr")
        empty = empty_of(plate, written)
        percentiles = s.normalize.percentiles
        rows = self._measured("measure", volumes_of(plate), lambda where: plate.read(*where), percentiles, empty)
        self._check_constant(rows, empty)
        write_statistics(out / "statistics.csv", rows)
        self._write_tiles(plate, empty)
        self._write_split(plate)
        channels = {"channels": list(plate.channels), "channel_numbers_in_input": list(self.plate.channel_numbers)}
        write_json(out / "preprocessing.json", channels | {"steps": self._steps()})

    def _measured(
        self,
        what: str,
        volumes: Sequence[Where],
        read: Callable[[Where], np.ndarray],
        percentiles: tuple[float, float],
        empty: Empty | None = None,
    ) -> list[Row]:
        """Return the statistics of volumes, each of which is read twice, behind one progress bar."""
        with progress(what=what, total=2 * len(volumes), unit="volume") as bar:
            return measure(volumes, read, percentiles, lambda f, some: in_threads(f, some, self.workers, bar), empty)

    def _flat_fields(self) -> dict[int, np.ndarray]:
        """Estimate or read the flat fields of the channels that are asked for, and store them."""
        step, plate, folder = self.settings.flat_field, self.plate, self.settings.output / "flat_field"
        if step is None:
            return {}
        size, pixel, told, fields = check_equal_sizes(plate), plate.voxel_size_nm, {}, {}
        for channel in plate.chosen_channels(step.channels):
            number, name, images = plate.channel_numbers[channel], plate.channels[channel], None
            light = Light(number, name, size, (pixel[1], pixel[2]) if pixel else None)
            if step.folder:
                fields[channel] = read_flat_field(step.folder, light)
            else:
                part = plate.part(channel, step.times, step.slices)
                sums = self._sums(part, f"flat field of {name}")
                fields[channel], images = estimate_flat_field(sums, step.block_size, f"{plate.path}, channel {name}")
            low, high = float(fields[channel].min()), float(fields[channel].max())
            told[name] = {"channel": number, "lowest": low, "highest": high, "images": images}
            write_flat_field(folder, fields[channel], light)
        self.results["flat_field"] = told
        return fields

    def _sums(self, plate: Plate, what: str) -> Iterator[SumOfImages]:
        """Yield the sums of the images of each volume, in order; a few volumes are in memory at a time."""
        volumes = volumes_of(plate)
        with progress(what=what, total=len(volumes), unit="volume") as bar:
            for begin in range(0, len(volumes), self.workers):
                few = volumes[begin : begin + self.workers]
                yield from in_threads(lambda where: sum_of_images(plate.read(*where)), few, self.workers, bar)

    def _limits(self, correction: Correction) -> dict[Where, tuple[float, float]]:
        """Measure the percentiles at which each volume is clipped."""
        step = self.settings.clip
        if step is None:
            return {}
        chosen = self.plate.chosen_channels(step.channels)
        volumes = [where for where in volumes_of(self.plate) if where.channel in chosen]
        rows = self._measured("measure for clip", volumes, correction.resized, step.percentiles)
        near = {(row.position, row.time, row.channel): (row.low, row.high) for row in rows if row.scope == step.scope}
        limits = {}
        for where in volumes:
            position, _, channel = where
            limits[where] = near[
                {"dataset": ("", "", channel), "position": (position, "", channel)}.get(step.scope, where)
            ]
        told = {self.plate.channels[row.channel]: [row.low, row.high] for row in rows if row.scope == "dataset"}
        self.results["clip"] = {"percentiles_of_the_data_set": told}
        return limits

    def _check_masks(self, written: Sequence[Written]) -> None:
        if self.settings.masks is None:
            return
        if not any(one.inside for one in written):
            where = self.masks_from.path if self.masks_from else self.plate.path
            raise BadInput(f"{where}: the mask is empty, no position has foreground; expected another method or radius")
        without = [name for name, one in zip(self.plate.positions, written, strict=True) if not one.inside]
        if without:
            _log.warning("%s: no foreground in %d positions: %s", self.plate.path, len(without), ", ".join(without[:8]))
        fraction = sum(one.inside for one in written) / sum(one.total for one in written)
        self.results["masks"] = {"foreground": fraction, "positions_without_foreground": without}

    def _check_constant(self, rows: Sequence[Row], empty: Empty) -> None:
        whole = [row for row in rows if row.scope == "dataset"]
        for row in whole:
            if not row.voxels:
                name = self.plate.channels[row.channel]
                raise BadInput(f"{self.plate.path}, channel {name}: all images are constant, expected some with light")
        counts = {self.plate.channels[row.channel]: row.empty for row in whole}
        if any(counts.values()):
            _log.info("%s: empty images (one value throughout), not counted in statistics: %s", self.plate.path, counts)
        where = [
            {
                "position": place.position,
                "time": place.time,
                "channel": self.plate.channels[place.channel],
                "slice": int(z),
            }
            for place, dark in empty.items()
            for z in np.flatnonzero(dark)
        ]
        self.results["normalize"] = {"empty_images": counts, "empty": where}

    def _write_tiles(self, plate: ZarrPlate, empty: Empty) -> None:
        step = self.settings.tiles
        if step is None:
            return
        counted = in_threads(
            lambda where: self._tiles_of(plate, where, empty[where]), volumes_of(plate), self.workers, "tiles", "volume"
        )
        rows = [row for _, kept in counted for row in kept]
        if not rows:
            raise BadInput(
                f"{self.plate.path}: no tile has {step.min_fraction:g} of foreground, expected a lower min_fraction"
            )
        write_statistics(self.settings.output / "tiles.csv", rows)
        self.results["tiles"] = {"tiles": sum(total for total, _ in counted), "kept": len(rows)}

    def _tiles_of(self, plate: ZarrPlate, where: Where, empty: np.ndarray) -> tuple[int, list[Row]]:
        """Return the number of tiles of a volume, and the statistics of those with enough foreground."""
        step, volume = self.settings.tiles, plate.read(*where)
        assert step is not None
        try:
            boxes = list(tiles_of(volume.shape, step.size, step.step))
        except ValueError as error:
            raise BadInput(f"{plate.path}/{where.position}: {error}") from None
        mask = plate.read(where.position, where.time, 0, MASK) > 0 if self.settings.masks else None
        kept = boxes if mask is None else kept_tiles(mask, boxes, step.min_fraction)
        return len(boxes), tile_rows(volume, where, kept, mask, self.settings.normalize.percentiles, empty)

    def _write_split(self, plate: Plate) -> None:
        step = self.settings.split
        if step is None:
            return
        values = values_of(plate, step.by)
        try:
            dealt = split_values(values, step.model_dump(include=set(PARTS)), step.seed)
        except ValueError as error:
            raise BadInput(f"{self.plate.path}: split by {step.by}: {error}") from None
        if step.file:
            dealt = read_split(step.file, step.by, values)
            check_meant(step.file, plate, step.by)
        write_split(self.settings.output / "split.json", step.by, dealt, meant_by(plate, step.by))
        self.results["split"] = {part: len(chosen) for part, chosen in dealt.items()}

    def _steps(self) -> list[dict[str, Any]]:
        """Return a record of every step, also of those that were not asked for."""
        steps = []
        for name in _STEPS:
            step = getattr(self.settings, name)
            if step is None:
                steps.append({"step": name, "done": False, "why": "not in the configuration"})
                _log.info("%s: not in the configuration, not done", name)
            else:
                said = step.model_dump(mode="json", exclude={"folder", "file"})
                steps.append({"step": name, "done": True, "settings": said, "result": self.results.get(name, {})})
        return steps
