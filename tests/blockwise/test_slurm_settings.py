import pytest

from emsuite.blockwise.slurm_settings import SlurmSettings, read_slurm_settings
from emsuite.common.errors import BadInput
from emsuite.common.settings import validate
from emsuite.segmentation.settings import SegmentationSettings


def test_what_is_not_said_is_left_to_the_cluster():
    assert SlurmSettings().options == ["--cpus-per-task=1"]
    settings = SlurmSettings(partition="cpu", time="2:00:00", memory="8G", cpus=2, extra=("--constraint=avx2",))
    expected = ["--partition=cpu", "--time=2:00:00", "--mem=8G", "--cpus-per-task=2", "--constraint=avx2"]
    assert settings.options == expected


def test_settings_from_the_command_line():
    settings = read_slurm_settings(
        ["workers=10", "partition=cpu", "time=2:00:00", "extra=[--constraint=avx2, --qos=low]"]
    )
    assert settings == SlurmSettings(
        workers=10, partition="cpu", time="2:00:00", extra=("--constraint=avx2", "--qos=low")
    )
    words = settings.arguments
    assert words[:2] == ["--workers", "slurm"]
    assert read_slurm_settings(words[3::2]) == settings


@pytest.mark.parametrize(
    ("pairs", "line"),
    [
        (["partition"], "--slurm partition: expected KEY=VALUE"),
        (["partitoin=cpu"], "--slurm: partitoin: unknown key"),
        (["workers=0"], "--slurm: workers: .*greater than 0"),
        (["extra=[a"], "not valid yaml"),
    ],
)
def test_odd_settings_are_refused(pairs, line):
    with pytest.raises(BadInput, match=line):
        read_slurm_settings(pairs)


def test_settings_as_a_block_of_the_segmentation():
    settings = validate(SegmentationSettings, {"slurm": {"workers": 2, "account": "lab"}}, "config")
    assert settings.slurm.arguments == ["--workers", "slurm", "--slurm", "workers=2", "--slurm", 'account="lab"']
    with pytest.raises(BadInput, match=r"config: slurm\.acount: unknown key"):
        validate(SegmentationSettings, {"slurm": {"acount": "lab"}}, "config")
