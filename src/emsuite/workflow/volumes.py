"""The volumes of a run: which of them the workflow makes, what they hold, and the options that name it."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from emsuite.common.errors import BadInput
from emsuite.common.files import is_there
from emsuite.common.outputs import manifest_path
from emsuite.config.dataset import Dataset, Part
from emsuite.config.parts import VolumePart
from emsuite.data.labels_mask import is_known_without_mask, masks_path
from emsuite.io.regions import check_volume
from emsuite.io.volume import LABELS, MASK, RAW, holds_array, is_writable, open_volume
from emsuite.workflow.settings import for_snakemake


@dataclass(frozen=True)
class Volumes:
    """What the workflow knows of volumes: those of a data set below the folder `data`, and those of the user's own."""

    dataset: Dataset
    data: Path

    def parts(self, parts: Iterable[Part]) -> list[VolumePart]:
        """Return parts of the data set with their paths below the data folder."""
        path_of = self.dataset.volume_path
        return [VolumePart(volume=path_of(part.volume, self.data), roi=part.roi) for part in parts]

    def is_managed(self, volume: Path) -> bool:
        """Return whether the workflow fetches or synthesizes this volume, below the data folder."""
        is_below = volume.parent == self.data / self.dataset.prefix and volume.suffix == self.dataset.suffix
        return is_below and volume.stem in self.dataset.volumes

    def manifest(self, volume: Path) -> list[Path]:
        """Return the file whose presence says that a volume is complete; nothing for a volume of the user's own."""
        return [manifest_path(volume)] if self.is_managed(volume) else []

    def is_complete(self, volume: Path) -> bool:
        """Return whether a volume is there, whole. One that the workflow makes may still be to come."""
        return is_there(volume) and all(path.exists() for path in self.manifest(volume))

    def source_option(self, volume: str, shared: Iterable[Path]) -> list[str]:
        """Return `--from FOLDER` for the first of the shared folders that has the volume, or nothing."""
        for folder in shared:
            try:
                self.dataset.find_in(folder, volume)
            except BadInput:
                continue
            return ["--from", str(folder)]
        return []

    def skeletons_option(self, volume: Path) -> list[str]:
        """Return `--skeletons FOLDER` if skeletons lie beside the volume or are synthesized with it, or nothing."""
        folder = volume.with_suffix(".skeletons")
        is_synthesized = bool(self.dataset.synthesis) and self.is_managed(volume)
        return ["--skeletons", str(folder)] if is_synthesized or folder.exists() else []

    def has_labels(self, volume: Path) -> bool:
        """Return whether labels are the ground truth; if not, the skeletons beside a volume without labels are.

        A volume that is still to be fetched or synthesized counts as one with labels.
        """
        with_skeletons = self.is_complete(volume) and self.skeletons_option(volume)
        return not with_skeletons or holds_array(volume / LABELS)

    def truth_option(self, volume: Path, dataset_option: str) -> list[str]:
        """Return `--labels` and `--mask` to score by, of the arrays that the volume has or that the workflow writes.

        `--dataset` has the mask compared with its rule: another run may write the mask anew meanwhile.
        """
        has_labels, mask = self.has_labels(volume), volume / MASK
        has_mask = (has_labels and is_writable(volume)) or (is_there(volume) and holds_array(mask))
        labels = ["--labels", str(volume / LABELS)] if has_labels else []
        return [*labels, *(["--mask", str(mask), "--dataset", dataset_option] if has_mask else [])]

    def is_masked(self, volume: Path) -> bool:
        """Return whether the workflow writes a mask into a volume."""
        return is_writable(volume) and self.has_labels(volume)

    def masks(self, parts: Iterable[VolumePart]) -> list[str]:
        """Return the files whose presence says that the volumes of these parts exist, and are masked if they can be."""
        files = set[Path]()
        for volume in (part.volume for part in parts):
            files.update([masks_path(volume)] if self.is_masked(volume) else self.manifest(volume))
        return sorted(map(str, files))

    def check(self, part: VolumePart, is_named: bool, is_trained: bool) -> None:
        """Raise BadInput if a part cannot be what the run needs.

        Args:
            part: the part.
            is_named: whether the user names it. A volume of a split may be made anew, so its content is not looked at.
            is_trained: whether a network is trained on it. Skeletons are no ground truth for that.
        """
        volume = part.volume
        try:
            for_snakemake(volume)
        except ValueError as error:
            raise BadInput(f"{volume}: {error}") from None
        if is_named and self.is_complete(volume):
            needs_labels = not self.dataset.labels and (is_trained or self.has_labels(volume))
            check_volume(volume, part.roi, needs_labels)
        if is_writable(volume) or (self.is_managed(volume) and not volume.exists()):
            return
        open_volume(volume / RAW)
        if not is_known_without_mask(self.dataset.mask) and not holds_array(volume / MASK):
            raise BadInput(
                f"{volume}: has no {MASK}, which the data set {self.dataset.name} needs; masks are written into zarr "
                "volumes alone: convert it"
            )
