"""Files of preprocessing: what they may say, and one line for what they may not."""

from pathlib import Path

import pytest

from emsuite.common.errors import BadInput
from emsuite.common.settings import load
from emsuite.plates.settings import PreprocessSettings

PATHS = "input: a\noutput: b\n"


def settings_of(folder: Path, text: str) -> PreprocessSettings:
    (folder / "preprocess.yaml").write_text(PATHS + text)
    return load(PreprocessSettings, folder / "preprocess.yaml")


def test_nothing_is_done_that_is_not_named(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, "")
    for step in ("flat_field", "resize", "masks", "border_weights", "clip", "clahe", "tiles", "split"):
        assert getattr(settings, step) is None
    assert (settings.normalize.method, settings.normalize.scope) == ("z_score", "dataset")


def test_an_empty_step_has_its_defaults(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, "flat_field: {}\nclip: {}\nsplit: {}\nmasks: {channels: [1, dab]}\n")
    assert settings.flat_field is not None
    assert settings.flat_field.block_size == 32
    assert settings.clip is not None
    assert settings.clip.percentiles == (2, 98)
    assert settings.masks is not None
    assert settings.masks.channels == (1, "dab")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("flatfield: {}\n", "yaml:3: flatfield: unknown key.*expected one of flat_field"),
        ("clip: {percentiles: [98, 2]}\n", "yaml:3: clip.percentiles: expected the lower one first"),
        ("normalize: {scope: well}\n", "yaml:3: normalize.scope: expected one of dataset, position, volume, tile"),
        ("normalize: {scope: tile}\n", "normalize.scope: tile measures tiles, expected tiles"),
        ("border_weights: {}\n", "border_weights are those of masks, expected masks"),
        ("tiles: {size: [8, 8], min_fraction: 0.2}\n", "min_fraction is the foreground of masks, expected masks"),
        ("tiles: {size: [8, 8], step: [4]}\n", "step: .4., expected 2 lengths as size"),
        ("masks: {}\n", "expected channels to threshold, or the folder of masks"),
        ("masks: {channels: [0], method: borders}\n", "masks.method: expected one of otsu, unimodal"),
        ("split: {train: 0.9}\n", "train, val and test sum to 1.2, expected 1"),
        ("resize: {scale: 0}\n", "resize.scale"),
        ("resize: {}\n", "resize.scale: missing"),
        ("times: [-1]\n", "times.0"),
    ],
)
def test_odd_files_end_in_one_line(tmp_path: Path, text: str, line: str) -> None:
    with pytest.raises(BadInput, match=line):
        settings_of(tmp_path, text)
