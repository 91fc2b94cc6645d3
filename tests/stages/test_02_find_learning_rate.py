"""find_learning_rate.py as it is called."""

import csv
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from builders import write_array, write_network
from emsuite.training.learning_rate_finder import RatesTried

SCRIPT = "02_train/find_learning_rate.py"


@pytest.fixture
def network(tmp_path: Path) -> Path:
    """A network that trains in milliseconds, and beside it a volume of two neurons."""
    labels = np.ones((28, 28, 28), np.uint64)
    labels[:, :, 14:] = 2
    for name, array in {"raw": (labels * 90).astype(np.uint8), "labels/neuron_ids": labels}.items():
        write_array(tmp_path / "v.zarr/volumes" / name, array, (10, 10, 10))
    return write_network(tmp_path / "d/n", training={"optimizer": {"schedule": "cosine"}})


def test_a_rate_is_suggested_and_nothing_else_changes(call_script: Callable, network: Path) -> None:
    ended = call_script(SCRIPT, network, "--data", network.parents[1] / "v.zarr", "--steps", 40, "--device", "cpu")
    assert ended.code == 0, ended.err
    with open(network / "log/learning_rates.csv", newline="") as file:
        rows = [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]
    rates, losses = ([row[key] for row in rows] for key in ("learning_rate", "loss"))
    assert rates[0] == pytest.approx(1e-6)
    assert rates == pytest.approx(np.geomspace(1e-6, 1, 40)[: len(rates)])
    suggested, use, bounds, table, drawn = ended.out.splitlines()
    low, high = map(float, re.search(r"cycles +(\S+) and (\S+):", bounds).groups())
    assert rates[0] <= low < high <= rates[int(np.argmin(losses))] * 1.06
    assert drawn.split() == ["drawn", str(network / "log/learning_rates.svg")]
    assert "learning rate" in (network / "log/learning_rates.svg").read_text()
    rate = re.search(r"learning_rate=(\S+),", use)[1]
    assert suggested.startswith(f"suggested learning rate  {rate}, a tenth of ")
    assert float(rate) == pytest.approx(rates[int(np.argmin(losses))] / 10, rel=0.06)
    assert 1e-5 < float(rate) <= 0.1
    assert table.split() == ["rates", "and", "losses", str(network / "log/learning_rates.csv")]
    assert min(losses) < 0.9 * losses[0]
    assert b"\r" not in (network / "log/learning_rates.csv").read_bytes()
    assert sorted(path.name for path in network.iterdir()) == ["log", "network.yaml"]


def test_limits_the_wrong_way_round_are_refused(call_script: Callable, network: Path) -> None:
    ended = call_script(SCRIPT, network, "--lowest", 0.1, "--highest", 0.01)
    assert ended.code == 2
    assert "--lowest 0.1: expected a rate below --highest, 0.01" in ended.err


@pytest.mark.parametrize("name", ["rates.svg", "rates.SVG", "folder", "drawn.csv"])
def test_a_table_that_cannot_be_written_is_refused_before_training(
    call_script: Callable, network: Path, tmp_path: Path, name: str
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "drawn.svg").mkdir()
    ended = call_script(SCRIPT, network, "--out", tmp_path / name)
    assert ended.code == 2
    assert re.fullmatch(r"error: .*(gets this name|is a folder).*", ended.err.strip())
    assert not (tmp_path / name).is_file()


def test_a_loss_that_never_falls_suggests_nothing(tmp_path: Path) -> None:
    for rates, losses in (([1e-3, 1e-2], [1, 2]), ([1e299], [1]), ([1e-6, 1e-5, 1e-4], [2.0, 2.0, 2.0])):
        text = RatesTried(rates, losses).as_text(tmp_path / "t.csv")
        assert text.startswith("no learning rate found   the loss never falls")
        assert "learning_rate=" not in text
        assert "t.svg" in text
    assert RatesTried([1e-3, 1e-2], [2, 1]).as_text(tmp_path / "t.csv").startswith("suggested")


def test_cycles_run_from_where_the_loss_begins_to_fall_to_where_it_stops() -> None:
    rates = [10.0**power for power in range(-6, 1)]
    assert RatesTried(rates, [10, 10.2, 9.9, 5, 1.1, 1.0, 4]).bounds == (1e-3, 1e-2)
    assert RatesTried(rates, [1, 2, 3, 4, 5, 6, 7]).bounds == (1e-6, 1e-6)


def test_the_suggestion_lies_a_decade_below_the_lowest_loss() -> None:
    assert RatesTried([1e-4, 1e-3, 1e-2, 1e-1], [3, 2, 1, 4]).suggested == pytest.approx(1e-3)


def test_the_option_that_is_printed_sets_the_rate(tmp_path: Path) -> None:
    from emsuite.config.network import load_network

    text = RatesTried([1e-4, 1e-3, 1e-2, 1e-1], [3, 2, 1, 4]).as_text(tmp_path / "t.csv")
    override = re.search(r"--set (\S+),", text)[1]
    config = load_network(write_network(tmp_path / "d/n"), [override])
    assert config.training.optimizer.learning_rate == pytest.approx(1e-3)
