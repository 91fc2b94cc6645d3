"""The public doors: the same objects as inside, cheap to import, without effects on the process."""

import importlib
import json
import subprocess
import sys

import pytest

DOORS = {
    "affinities": {"affinities": "targets.affinities"},
    "lsds": {"local_shape_descriptors": "targets.lsds"},
    "scores": dict.fromkeys(("adapted_rand", "rand_index", "variation_of_information"), "evaluation.scores"),
    "unet": {"UNet": "models.unet", "UNetSettings": "models.unet"},
    "volume": dict.fromkeys(("Volume", "create_volume", "open_volume"), "io.volume"),
}
LOOK = """
import json, os, sys
before = dict(os.environ)
import emsuite.{door}
changed = [key for key, value in os.environ.items() if before.get(key) != value]
print(json.dumps({{"modules": sorted(sys.modules), "environment": changed}}))
"""


@pytest.mark.parametrize("door", DOORS)
def test_a_door_leads_to_the_same_objects(door: str) -> None:
    module = importlib.import_module(f"emsuite.{door}")
    assert sorted(module.__all__) == sorted(DOORS[door])
    for name, inside in DOORS[door].items():
        assert getattr(module, name) is getattr(importlib.import_module(f"emsuite.{inside}"), name)


@pytest.mark.parametrize("door", DOORS)
def test_a_door_opens_alone(door: str) -> None:
    done = subprocess.run([sys.executable, "-c", LOOK.format(door=door)], capture_output=True, text=True, check=True)
    seen = json.loads(done.stdout)
    assert seen["environment"] == []
    assert not {f"emsuite.{other}" for other in DOORS.keys() - {door}} & set(seen["modules"])
    heavy = {"click", "daisy", "matplotlib", "neuroglancer"} | ({"torch"} if door in ("scores", "volume") else set())
    assert not heavy & set(seen["modules"])
