import pytest

from emsuite.errors import BadInput
from emsuite.files import write_json
from emsuite.provenance import provenance
from emsuite.timings import read_timings


def test_reads_manifests_and_benchmarks_in_the_order_given(tmp_path):
    manifest = provenance({}) | {"command": ["03_predict/predict.py", "--out", "x"], "seconds": 12.5}
    write_json(tmp_path / "prediction.zarr.manifest.json", manifest)
    header = "s\th:m:s\tmax_rss\tmax_vms\tmax_uss\tmax_pss\tio_in\tio_out\tmean_load\tcpu_time\n"
    (tmp_path / "agglomerate.tsv").write_text(header + "3.25\t0:00:03\t512.00\t0\t0\t0\t0\t0\t0\t0\n")
    (tmp_path / "short.tsv").write_text(header + "0.1\t0:00:00\tNA\t0\t0\t0\t0\t0\t0\t0\n")
    names = ["prediction.zarr.manifest.json", "agglomerate.tsv", "short.tsv"]
    predict, agglomerate, short = read_timings(tmp_path / name for name in names)
    assert (predict.stage, predict.seconds) == ("predict", 12.5)
    assert predict.memory > 2**20
    assert "CPUs" in predict.machine
    assert (agglomerate.stage, agglomerate.seconds, agglomerate.memory) == ("agglomerate", 3.25, 512 * 2**20)
    assert (short.seconds, short.memory) == (0.1, 0)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", "{}", "neither a manifest"),
        ("a.json", "{", "neither a manifest"),
        ("a.tsv", "x\ty\n1\t2\n", "neither a manifest"),
        ("none.tsv", None, "none.tsv: no such file"),
    ],
)
def test_other_files_are_refused(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(BadInput, match=message):
        read_timings([tmp_path / name])
