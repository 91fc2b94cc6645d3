"""The augmentations by name: what a yaml may say, and in which order."""

import re
import sys
from pathlib import Path
from types import ModuleType
from typing import get_args

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter, ValidationError

import emsuite.augment
from emsuite.augment import registry
from emsuite.augment.augmentation import GeometricAugmentation, ValueAugmentation
from emsuite.augment.elastic import Elastic
from emsuite.augment.mirror import MirrorTranspose
from emsuite.augment.registry import AUGMENTATIONS, Augmentation, Augmentations, check_order
from emsuite.common.errors import BadInput
from emsuite.common.settings import Settings, load


class Some(Settings):
    augment: Augmentations


def read(tmp_path: Path, text: str) -> Some:
    path = tmp_path / "network.yaml"
    path.write_text(text)
    return load(Some, path)


def test_each_augmentation_can_be_named_and_is_of_one_kind():
    kinds = get_args(get_args(Augmentation)[0])
    assert set(AUGMENTATIONS) == set(kinds)
    for kind in kinds:
        assert issubclass(kind, GeometricAugmentation) != issubclass(kind, ValueAugmentation)


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
        ("- {name: warp}", "0.name: expected one of .*; it holds 'warp'"),
        ("- {name: noise, sigma: [0, 0.1], colour: red}", "unknown key"),
        ("- {name: noise, sigma: [0.2, 0.1]}", r"expected \[lowest, highest\]"),
        ("- {name: intensity}\n- {name: mirror_transpose}", "'mirror_transpose' moves voxels, expected it before"),
        ("- {name: elastic, control_point_spacing: [4, 4, 4], jitter_sigma: [1, 1, 1]}\n"
         "- {name: elastic, control_point_spacing: [4, 4, 4], jitter_sigma: [0, 0, 0]}", "only the last 'elastic'"),
        ("- {name: elastic, control_point_spacing: [4, 4], jitter_sigma: [1, 1, 1]}", "control_point_spacing"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_with_its_line(tmp_path, text, message):
    with pytest.raises(BadInput, match=message) as refused:
        read(tmp_path, f"augment:\n{text}\n")
    assert "\n" not in str(refused.value)
    assert "network.yaml:" in str(refused.value)


SALT = '''
"""Salt: voxels that become 1."""

from typing import Literal

import numpy as np
import torch

from emsuite.augment.augmentation import ValueAugmentation


class Salt(ValueAugmentation):
    """Every `step`-th voxel along x becomes 1."""

    name: Literal["salt"]
    step: int = 2

    def apply(self, raw: torch.Tensor, random: np.random.Generator) -> None:
        """Change `raw` in place."""
        raw[..., :: self.step] = 1
'''


def test_one_file_and_one_line_add_an_augmentation(tmp_path, monkeypatch):
    monkeypatch.setattr(emsuite.augment, "__path__", [*emsuite.augment.__path__, str(tmp_path)])
    (tmp_path / "salt.py").write_text(SALT)
    code = Path(registry.__file__).read_text()
    assert code.count('    "noise",\n') == 1
    longer = ModuleType("registry_with_salt")
    try:
        exec(
            compile(code.replace('    "noise",\n', '    "noise",\n    "salt",\n'), "registry.py", "exec"), vars(longer)
        )
    finally:
        sys.modules.pop("emsuite.augment.salt", None)
    schema = TypeAdapter(longer.Augmentations)
    steps = schema.validate_python(
        [
            {"name": "mirror_transpose"},
            {"name": "salt", "step": 4},
            {"name": "intensity", "scale": [1, 1], "shift": [0, 0]},
        ]
    )
    raw = torch.zeros(1, 2, 8)
    longer.change_values(steps, raw, np.random.default_rng(0))
    assert raw[0, 0].tolist() == [1, 0, 0, 0, 1, 0, 0, 0]
    with pytest.raises(ValidationError, match="moves voxels, expected it before"):
        schema.validate_python([{"name": "salt"}, {"name": "mirror_transpose"}])


class Bend(GeometricAugmentation):
    """A geometric augmentation that displaces voxels."""

    name: str = "bend"

    @property
    def displaces(self) -> bool:
        return True

    def draw(self, box, centre, random):
        raise NotImplementedError


def test_only_permutations_of_axes_may_follow_a_displacement():
    rotation = Elastic(name="elastic", control_point_spacing=(4, 4, 4), jitter_sigma=(0, 0, 0), rotation=(0, 1))
    mirror = MirrorTranspose(name="mirror_transpose")
    assert check_order((mirror, rotation, mirror, Bend(), mirror))
    with pytest.raises(ValueError, match="only the last 'bend' or 'elastic' may"):
        check_order((Bend(), mirror, rotation))


def test_every_module_with_an_augmentation_is_registered():
    package = Path(registry.__file__).parent
    texts = {path.stem: path.read_text() for path in package.glob("*.py") if path.stem != "augmentation"}
    pattern = re.compile(r"^class \w+\((Geometric|Value)Augmentation\)", re.MULTILINE)
    assert {stem for stem, text in texts.items() if pattern.search(text)} == set(registry.MODULES)
