"""What a run reports: rates, the share spent waiting, pictures."""

from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from emsuite.common.errors import BadInput
from emsuite.common.profile import PartTime
from emsuite.config.network import NetworkConfig
from emsuite.losses.target import HeadOutput, Target
from emsuite.training.batches import Batch
from emsuite.training.log import TrainingReport, read_losses
from emsuite.training.step import StepResult

CONFIG = NetworkConfig.model_validate({
    "dataset": "d", "network": "n", "voxel_size": [10, 10, 10],
    "unet": {"num_fmaps": 4, "fmap_inc_factor": 2, "downsample_factors": [[2, 2, 2]]},
    "heads": {"affs": {"target": "affinities", "neighborhood": [[-1, 0, 0], [0, -1, 0], [0, 0, -1]]}},
    "training": {"iterations": 9, "input_shape": [8, 8, 8], "sampling": {}},
    "prediction": {"input_shape": [20, 20, 20]},
})  # fmt: skip


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time; the last counts."""
    times = [0.0]
    monkeypatch.setattr("emsuite.training.log.time.perf_counter", lambda: times[-1])
    return times


def test_rates_are_means_since_the_last_report(
    tmp_path: Path, clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    report = TrainingReport(tmp_path, CONFIG, 10, 30, list(CONFIG.heads))
    clock.append(1.0)
    report.add(11, {"loss": 3.0, "affs": 3.0}, 0.1, waited=0.25)
    for _ in range(10):
        report.step()
    clock.append(6.0)
    report.add(21, {"loss": 2.0, "affs": 2.0}, 0.05, waited=1.25)
    report.close()
    rows = read_losses(tmp_path / "log/losses.csv")
    assert [(row["iteration"], row["seconds"], row["waiting"]) for row in rows] == [(11, 1, 0.25), (21, 0.5, 0.1)]
    assert rows[1]["loss"] == rows[1]["affs"] == 2
    assert rows[1]["learning_rate"] == 0.05
    assert b"\r" not in (tmp_path / "log/losses.csv").read_bytes()
    board = EventAccumulator(str(tmp_path / "log")).Reload()
    for name, expected in {"iterations_per_second": [1, 2], "waiting_share": [0.25, 0.2], "loss": [3, 2]}.items():
        assert [event.step for event in board.Scalars(name)] == [11, 21]
        assert [event.value for event in board.Scalars(name)] == pytest.approx(expected)
    assert "waiting=20%" in capsys.readouterr().err


def test_pictures_show_the_middle_section(tmp_path: Path) -> None:
    report = TrainingReport(tmp_path, CONFIG, 0, 30, list(CONFIG.heads))
    target = Target(torch.rand(2, 3, 4, 5, 6), torch.ones(2, 3, 4, 5, 6), torch.ones(2, 4, 5, 6, dtype=torch.int32))
    batch = Batch(7, {"raw": torch.rand(2, 1, 8, 9, 10)}, {"affs": target}, torch.ones(2, 5, 6, 7, dtype=torch.uint8))
    report.show(StepResult({}, batch, {"affs": HeadOutput(torch.randn(2, 3, 4, 5, 6), torch.sigmoid)}))
    report.close()
    board = EventAccumulator(str(tmp_path / "log")).Reload()
    shown = {name: board.Images(name)[0] for name in ("raw", "affs")}
    assert {name: (image.step, image.height, image.width) for name, image in shown.items()} == {
        "raw": (7, 9, 10), "affs": (7, 5, 12)}  # fmt: skip


def test_a_long_run_says_once_how_long_it_will_take(
    tmp_path: Path, clock: list[float], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    caplog.set_level("INFO", "emsuite")
    report = TrainingReport(tmp_path, CONFIG, 100, 400_101, list(CONFIG.heads))
    for second in (100, 200, 300):
        clock.append(second)
        report.step()
    report.close()
    assert caplog.messages == [
        "100 s per iteration, and 400,000 iterations to go: about 463 days; a network of this size is meant for a GPU"
    ]


def test_a_short_run_does_not(tmp_path: Path, clock: list[float], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "emsuite")
    report = TrainingReport(tmp_path, CONFIG, 0, 30, list(CONFIG.heads))
    for second in range(30):
        clock.append(second)
        report.step()
    report.close()
    assert caplog.messages == []


@pytest.mark.parametrize(
    "text", ["iteration\nx\n", "a,b\n1,2\n", "iteration\n1e999\n", "iteration\n1,2\n", "\0\n\0\n", "\n\n1"]
)
def test_a_table_that_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "losses.csv").write_text(text)
    with pytest.raises(BadInput, match=r"losses\.csv:\d+: no row of a table of losses"):
        read_losses(tmp_path / "losses.csv")


def test_a_table_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "losses.csv").write_bytes(b"\xff\xff")
    with pytest.raises(BadInput, match="is no text in UTF-8"):
        read_losses(tmp_path / "losses.csv")


def test_a_profile_is_a_table_and_curves(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "emsuite")
    report = TrainingReport(tmp_path, CONFIG, 0, 30, list(CONFIG.heads))
    report.add_profile(20, {"noise": PartTime(10, 1, 3, 2, 2), "update": PartTime(10, 4, 6, 5, 5),
                            "warp": PartTime(20, 1, 1, 1, 1)})  # fmt: skip
    report.close()
    assert caplog.messages[0] == "what took how long, up to iteration 20:"
    assert [line.split()[0] for line in caplog.messages[1:]] == ["part", "warp", "noise", "update"]
    board = EventAccumulator(str(tmp_path / "log")).Reload()
    assert [(event.step, event.value) for event in board.Scalars("profile/update")] == [(20, 5)]
