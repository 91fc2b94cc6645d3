"""With TensorFlow itself: the recorded fixtures come out again, and it reads what fixtures/write_bundle.py writes.

TensorFlow is no dependency. Name a Python that has it (and tf_keras, see fixtures/make_tensorflow_bundles.py):

    EMSUITE_TENSORFLOW_PYTHON=tf/bin/python pytest tests/test_tensorflow_fixtures.py
"""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from builders import RECORDED, ROOT

FIXTURES = ROOT / "tests/fixtures"
BUNDLES = sorted(path.relative_to(RECORDED).with_suffix("") for path in RECORDED.glob("*/*/*.index"))

DUMP = """
import sys
import numpy as np
import tensorflow as tf
for prefix, out in zip(sys.argv[1::2], sys.argv[2::2]):
    bundle = tf.train.load_checkpoint(prefix)
    np.savez(out, **{name: bundle.get_tensor(name) for name in bundle.get_variable_to_shape_map()})
"""


def tensorflow(*arguments: Any) -> subprocess.CompletedProcess[str]:
    """Run the Python that has TensorFlow."""
    python = os.environ.get("EMSUITE_TENSORFLOW_PYTHON")
    if not python and importlib.util.find_spec("tensorflow") is None:
        pytest.skip("TensorFlow is not installed; EMSUITE_TENSORFLOW_PYTHON may name a Python that has it")
    command = [python or sys.executable, *(str(argument) for argument in arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def dump(folder: Path, *prefixes: Path) -> list[dict[str, np.ndarray]]:
    """What TensorFlow finds in these bundles, by name."""
    outs = [folder / f"dump_{place}.npz" for place in range(len(prefixes))]
    done = tensorflow("-c", DUMP, *(path for pair in zip(prefixes, outs, strict=True) for path in pair))
    assert done.returncode == 0, done.stderr
    return [dict(np.load(out)) for out in outs]


@pytest.fixture
def writer() -> ModuleType:
    """tests/fixtures/write_bundle.py"""
    spec = importlib.util.spec_from_file_location("write_bundle", FIXTURES / "write_bundle.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_the_recorded_fixtures_come_out_again(tmp_path: Path) -> None:
    done = tensorflow(FIXTURES / "make_tensorflow_bundles.py", tmp_path / "again")
    assert done.returncode == 0, done.stderr
    assert len(BUNDLES) == 8
    assert names(tmp_path / "again") == names(RECORDED)
    bundles = dump(tmp_path, *(RECORDED / name for name in BUNDLES), *(tmp_path / "again" / name for name in BUNDLES))
    for name, recorded, again in zip(BUNDLES, bundles[:8], bundles[8:], strict=True):
        assert_close(recorded, again, 1e-6, name)
        before, now = (dict(np.load(root / name.parent / "expected.npz")) for root in (RECORDED, tmp_path / "again"))
        assert_close(before, now, 2e-5, name)


def names(folder: Path) -> list[Path]:
    return sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())


def assert_close(a: dict[str, np.ndarray], b: dict[str, np.ndarray], tolerance: float, what: Path) -> None:
    assert a.keys() == b.keys(), what
    for name in a:
        assert (a[name].shape, a[name].dtype) == (b[name].shape, b[name].dtype), (what, name)
        np.testing.assert_allclose(a[name], b[name], rtol=tolerance, atol=tolerance, err_msg=f"{what} {name}")


def some_variables() -> dict[str, np.ndarray]:
    """Enough names for several blocks of the index, shapes of every rank up to 5, all dtypes."""
    rng = np.random.default_rng(0)
    made: dict[str, np.ndarray] = {
        f"scope/layer_{place}/{kind}": rng.standard_normal(rng.integers(1, 4, place % 6)).astype(np.float32)
        for place in range(300)
        for kind in ("kernel", "bias")
    }
    types = ("float64", "int32", "int64", "uint8", "int16", "int8", "bool", "float16")
    return made | {f"of_type/{dtype}": rng.integers(0, 2, (2, 3)).astype(dtype) for dtype in types}


def test_tensorflow_reads_what_is_written(writer: ModuleType, tmp_path: Path) -> None:
    variables = some_variables()
    for shards in (1, 3):
        writer.write_bundle(tmp_path / f"shards_{shards}", variables, shards)
    writer.write_bundle(tmp_path / "big_endian", variables, odd=writer.Odd(big_endian=True))
    index = (tmp_path / "shards_1.index").read_bytes()
    assert len(index) > 4 * writer.BLOCK_SIZE
    for found in dump(tmp_path, tmp_path / "shards_1", tmp_path / "shards_3", tmp_path / "big_endian"):
        assert found.keys() == variables.keys()
        for name, values in variables.items():
            assert (found[name].dtype, found[name].shape) == (values.dtype, values.shape), name
            np.testing.assert_array_equal(found[name], values)


@pytest.mark.parametrize(
    ("odd", "complaint"),
    [
        ({"compressed": True}, "corrupted compressed block"),
        ({"min_consumer": 2}, "min consumer"),
        ({"num_shards": 2}, "00000-of-00002"),
        ({"sliced": "scope/layer_5/kernel"}, "scope/layer_5/kernel"),
        ({"text": "scope/layer_5/kernel"}, "length checksum"),
        ({"wrong_crc": "scope/layer_5/kernel"}, "hecksum"),
    ],
    ids=["compressed", "min_consumer", "num_shards", "sliced", "text", "wrong_crc"],
)
def test_tensorflow_stumbles_over_what_is_odd(
    odd: dict[str, Any], complaint: str, writer: ModuleType, tmp_path: Path
) -> None:
    writer.write_bundle(tmp_path / "odd", some_variables(), odd=writer.Odd(**odd))
    done = tensorflow("-c", DUMP, tmp_path / "odd", tmp_path / "out.npz")
    assert done.returncode != 0
    assert complaint in done.stderr.splitlines()[-1], done.stderr


def test_a_full_size_checkpoint_has_the_names_of_a_recorded_one(writer: ModuleType, tmp_path: Path) -> None:
    [recorded] = dump(tmp_path, RECORDED / "zebrafinch/mtlsd/train_net_checkpoint_400000")
    variables = writer.published_variables(ROOT / "02_train/zebrafinch/mtlsd")
    assert variables.keys() == recorded.keys()
    assert {name: len(variables[name].shape) for name in recorded} == {name: recorded[name].ndim for name in recorded}
    trained = [v for name, v in variables.items() if name.startswith("setup02/") and name.count("/") == 2]
    assert sum(int(np.prod(variable.shape)) for variable in trained) == 95_856_355
