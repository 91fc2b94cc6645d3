"""The stages on volumes that lie on a server: the same bytes as from the disk."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from builders import files_in
from emsuite.io.volume import LABELS, create_volume
from file_server import serve_files


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """The address of a server of the test's folder, on loopback."""
    with serve_files(tmp_path) as address:
        yield address


def test_affinities_and_labels_on_a_server(call_script: Callable, server: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name, voxels in (
        ("p.zarr/affs", rng.integers(0, 256, (3, 24, 24, 24)).astype(np.uint8)),
        (f"v.zarr/{LABELS}", rng.integers(1, 5, (24, 24, 24)).astype(np.uint64)),
    ):
        volume = create_volume(tmp_path / name, voxels.shape, voxels.dtype, (8, 8, 8), (0, 0, 0))
        volume.write(volume.roi, voxels)
    for place, out in ((str(tmp_path), tmp_path / "from disk"), (server, tmp_path / "from server")):
        fragments, edges = f"{out}/fragments.zarr/fragments", f"{out}/graph/edges"
        for words in (
            ("extract_fragments", "--affs", f"{place}/p.zarr/affs", "--out", out),
            ("agglomerate", "--affs", f"{place}/p.zarr/affs", "--fragments", fragments, "--out", edges),
            ("find_segments", "--nodes", f"{out}/graph/nodes", "--edges", edges, "--out", f"{out}/lookup"),
            ("evaluate", "--fragments", fragments, "--lookup", f"{out}/lookup", "--out", out,
             "--labels", f"{place}/v.zarr/{LABELS}"),
        ):  # fmt: skip
            ended = call_script(f"04_segment/{words[0]}.py", *words[1:])
            assert ended.code == 0, ended.err
    for part in ("fragments.zarr", "graph/nodes", "graph/edges", "lookup", "contingency"):
        assert files_in(tmp_path / "from disk" / part) == files_in(tmp_path / "from server" / part)
    tables = [(tmp_path / f"from {place}/scores.csv").read_text() for place in ("disk", "server")]
    assert tables[0] == tables[1]
