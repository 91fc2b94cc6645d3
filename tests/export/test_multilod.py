"""Fragments of meshes, decoded by neuroglancer's own decoder: the WebAssembly in its Python package, run by node."""

import json
import shutil
import subprocess
from pathlib import Path

import neuroglancer
import numpy as np
import pytest

from emsuite.export.mesh import mesh_labels
from emsuite.export.multilod import Space, encode, levels_of_detail, z_curve
from export_reader import read_manifest

DECODE = """
const fs = require("fs"), [folder, file, ranges] = process.argv.slice(1);
(async () => {
  let decoder, faces;
  const env = {
    emscripten_notify_memory_growth() {}, proc_exit() {},
    neuroglancer_draco_receive_decoded_mesh(number) { faces = number; },
  };
  for (const name of fs.readdirSync(folder).filter((name) => name.endsWith(".wasm"))) {
    const module = await WebAssembly.compile(fs.readFileSync(folder + "/" + name));
    if (WebAssembly.Module.exports(module).some((each) => each.name == "neuroglancer_draco_decode"))
      decoder = (await WebAssembly.instantiate(module, { env, wasi_snapshot_preview1: env })).exports;
  }
  decoder._initialize();
  const data = fs.readFileSync(file), found = [];
  for (const [begin, size, level] of JSON.parse(ranges)) {
    const place = decoder.malloc(size);
    new Uint8Array(decoder.memory.buffer).set(data.subarray(begin, begin + size), place);
    found.push([decoder.neuroglancer_draco_decode(place, size, level > 0, 16, true), faces]);
  }
  console.log(JSON.stringify(found));
})();
"""


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node")
def test_neuroglancers_decoder_takes_every_fragment(tmp_path: Path) -> None:
    labels = np.zeros((20, 60, 300), np.uint32)
    labels[2:18, 5:55, 3:290] = np.random.default_rng(0).random((16, 50, 287)) < 0.7
    ((_, mesh),) = mesh_labels(labels, (1, 1, 1))
    manifest, data = encode(levels_of_detail(mesh, Space((0, 0, 0), (8, 8, 8)), 3), Space((0, 0, 0), (8, 8, 8)))
    (tmp_path / "1").write_bytes(data)
    (tmp_path / "1.index").write_bytes(manifest)
    ranges, begin = [], 0
    for level, (_, sizes) in enumerate(read_manifest(tmp_path / "1.index")["fragments"]):
        for size in map(int, sizes):
            ranges += [(begin, size, level)] if size else []
            begin += size
    folder = Path(neuroglancer.__file__).parent / "static/client"
    command = ["node", "-e", DECODE, folder, tmp_path / "1", json.dumps(ranges)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    found = json.loads(done.stdout)
    assert len(found) == len(ranges) >= 5
    assert {code for code, _ in found} == {0}
    assert min(faces for _, faces in found) > 0


def test_cells_are_in_z_order() -> None:
    cells = [(x, y, z) for z in range(2) for y in range(2) for x in range(2)]
    assert [z_curve(cell) for cell in cells] == list(range(8))
    assert z_curve((2, 0, 0)) == 8 < z_curve((0, 2, 0)) < z_curve((0, 0, 2))
