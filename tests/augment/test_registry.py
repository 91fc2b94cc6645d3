"""The augmentations by name: what a yaml may say, and in which order."""

from pathlib import Path
from typing import get_args

import pytest

from emsuite.augment.registry import GEOMETRIC, VALUES, Augmentation, Augmentations
from emsuite.common.errors import BadInput
from emsuite.common.settings import Settings, load


class Some(Settings):
    augment: Augmentations


def read(tmp_path: Path, text: str) -> Some:
    path = tmp_path / "network.yaml"
    path.write_text(text)
    return load(Some, path)


def test_each_augmentation_can_be_named_and_has_one_function():
    kinds = get_args(get_args(Augmentation)[0])
    assert set(GEOMETRIC) | set(VALUES) == set(kinds)
    assert not set(GEOMETRIC) & set(VALUES)


def test_the_published_order_is_read(tmp_path):
    some = read(tmp_path, """
augment:
- {name: elastic, control_point_spacing: [40, 40, 40], jitter_sigma: [0, 0, 0], rotation: [0, 1.5708], subsample: 8}
- {name: mirror_transpose, transpose: [0, 1, 2]}
- {name: elastic, control_point_spacing: [40, 40, 40], jitter_sigma: [2, 2, 2], slip: 0.01, max_misalign: 1}
- {name: intensity}
- {name: noise}
- {name: blur}
- {name: missing_sections}
""")  # fmt: skip
    assert [step.name for step in some.augment][:4] == ["elastic", "mirror_transpose", "elastic", "intensity"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- {name: warp}", "'warp' found using 'name' does not match any of the expected tags: 'elastic'"),
        ("- {name: noise, sigma: [0, 0.1], colour: red}", "unknown key"),
        ("- {name: noise, sigma: [0.2, 0.1]}", r"expected \[lowest, highest\]"),
        ("- {name: intensity}\n- {name: mirror_transpose}", "'mirror_transpose' moves voxels, expected it before"),
        ("- {name: elastic, control_point_spacing: [4, 4, 4], jitter_sigma: [1, 1, 1]}\n"
         "- {name: elastic, control_point_spacing: [4, 4, 4], jitter_sigma: [0, 0, 0]}", "only the last 'elastic'"),
        ("- {name: elastic, control_point_spacing: [4, 4], jitter_sigma: [1, 1, 1]}", "control_point_spacing"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_with_its_place(tmp_path, text, message):
    with pytest.raises(BadInput, match=message) as refused:
        read(tmp_path, f"augment:\n{text}\n")
    assert "\n" not in str(refused.value)
    assert "network.yaml:" in str(refused.value)
