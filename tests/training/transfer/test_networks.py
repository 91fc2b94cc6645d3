"""A discriminator's prior within runs: from a trained checkpoint, unchanged by training, and known to a resume."""

from pathlib import Path
from typing import Any

import pytest
import torch

from emsuite.common.errors import BadInput
from emsuite.config.network import load_network
from emsuite.training import checkpoint as checkpoints
from emsuite.training import trainer
from emsuite.training.registry import STEPS
from emsuite.training.step import StepResult, TrainingState
from emsuite.training.volumes import load_training_data
from small_training import AFFS, CPU, two_neurons, write_network
from small_transfer import VALID, run, write_valid

UNET = {"num_fmaps": 8, "fmap_inc_factor": 2, "downsample_factors": [[1, 2, 2], [1, 2, 2]], "padding": "same"}
"""Its coarsest level has 32 channels of voxels 4 wide, as a prior in 2-D must have."""


def train_membranes(folder: Path, until: int, **more: Any) -> dict[str, torch.Tensor]:
    """Train a supervised network and return its weights."""
    folder = folder if folder.exists() else write_network(folder, {"affs": AFFS}, unet=UNET, **more)
    config, volume = load_network(folder), two_neurons(folder.parent / f"{folder.name}.zarr")
    trainer.train(folder, config, load_training_data(config, [str(volume)], folder), until, CPU)
    return checkpoints.load(folder, config, until).best_weights


def with_prior(folder: Path, network: str = "../membranes", **keys: Any) -> Path:
    """A network of domain transfer whose discriminator reads another network."""
    prior = {"network": network, "iteration": 2, "layer": "unet.layer_2_left_1"} | keys
    return write_valid(folder, {"discriminator": VALID["discriminator"] | {"prior": prior}, "pool": 2})


def weights_of_prior(state: TrainingState) -> dict[str, torch.Tensor]:
    return state.networks["d_b"].prior._network[0].state_dict()


def test_a_run_reads_the_checkpoint_and_leaves_it_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained = train_membranes(tmp_path / "n/membranes", 2)
    train_membranes(tmp_path / "n/membranes", 4)  # a later one, which is not asked for
    folder = with_prior(tmp_path / "n/transfer")
    before = {path: path.read_bytes() for path in (tmp_path / "n/membranes/checkpoints").iterdir()}
    step, seen, states = STEPS["cyclegan"], list[bool](), list[TrainingState]()
    plain = step.run

    def watched(state: TrainingState, *arguments: Any) -> StepResult:
        result = plain(state, *arguments)
        seen.append(all(torch.equal(trained[name], weight) for name, weight in weights_of_prior(state).items()))
        states.append(state)
        return result

    monkeypatch.setattr(step, "run", watched)
    run(folder, 2)
    assert seen == [True, True]
    assert weights_of_prior(states[-1]).keys() == trained.keys()
    assert {path: path.read_bytes() for path in before} == before
    saved = checkpoints.read(folder / "checkpoints/checkpoint_2.pt")
    assert saved.frozen_digest == checkpoints.digest(trained)
    assert not any("unet" in name for name in saved.weights_of("d_b")), "it is not saved with the discriminator"
    fresh = STEPS["cyclegan"].build(folder, load_network(folder))[0]["d_b"].state_dict()
    learned = saved.weights_of("d_b")
    assert not all(torch.equal(learned[name], fresh[name]) for name in fresh), "all beside it learns"


def test_a_resumed_run_with_a_prior_gives_the_same_bytes(tmp_path: Path) -> None:
    train_membranes(tmp_path / "n/membranes", 2)
    for name, stops in (("straight", [4]), ("resumed", [2, 4])):
        folder = with_prior(tmp_path / "n/transfer")
        for until in stops:
            run(folder, until)
        folder.rename(tmp_path / "n" / name)
    both = [tmp_path / "n" / name / "checkpoints/checkpoint_4.pt" for name in ("straight", "resumed")]
    assert both[0].read_bytes() == both[1].read_bytes()


def test_a_resume_with_another_prior_is_refused(tmp_path: Path) -> None:
    """Whether iterations are left or not, until the key names the former weights."""
    train_membranes(tmp_path / "n/membranes", 4)
    folder = with_prior(tmp_path / "n/transfer")
    run(folder, 2)
    for until in (2, 4):
        told = refused(folder, until, "transfer.discriminator.prior.iteration=4")
        assert "other weights of the discriminator's prior, iteration 2 -> 4; " in told
        assert "transfer.discriminator.prior.iteration=2 reads the former weights" in told
    (tmp_path / "n/membranes").rename(tmp_path / "n/moved")
    run(folder, 4, "transfer.discriminator.prior.network=../moved")


def refused(folder: Path, until: int = 2, *overrides: str) -> str:
    with pytest.raises(BadInput) as error:
        run(folder, until, *overrides)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    ("prior", "told"),
    [
        ({"layer": "unet.layer_1_left_1"}, "prior.channels holds 32, but the layer 'unet.layer_1_left_1' has 16"),
        (
            {"layer": "unet.layer_1_left_1", "channels": 16},
            "yields 1x20x20 voxels for an input of 1x40x40 and 1x24x24 for 1x48x48, expected",
        ),
        ({"layer": "unet.layer_9"}, "prior.layer: the network has no layer 'unet.layer_9'; expected one of unet"),
        ({"iteration": 7}, "membranes: no checkpoint of iteration 7; it has 2"),
        ({"network": "../nowhere"}, "nowhere: no such folder; expected a network's"),
        ({"network": "."}, "transfer: reads other than raw alone, expected a network of raw"),
    ],
)
def test_a_prior_that_does_not_fit_is_told_in_one_line(tmp_path: Path, prior: dict[str, Any], told: str) -> None:
    train_membranes(tmp_path / "n/membranes", 2)
    folder = with_prior(tmp_path / "n/transfer", **prior)
    assert told in refused(folder)
    assert not list((folder / "checkpoints").glob("*.pt"))
