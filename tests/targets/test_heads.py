"""What every head answers, and which names and losses are refused."""

import pytest
import torch
from pydantic import TypeAdapter, ValidationError

from emsuite.models.network import Network
from emsuite.models.unet_settings import UNetSettings
from emsuite.targets.head import Head, LabelCrop
from emsuite.targets.heads import RESERVED_NAMES, AffinitiesHead, AnyHead, Heads, LsdsHead, instance_heads

AFFS = {"target": "affinities", "neighborhood": [[-1, 0, 0], [0, -3, 0], [0, 0, 2]]}
LSDS = {"target": "lsds", "sigma": 30}


def head(settings: dict) -> Head:
    return TypeAdapter(AnyHead).validate_python(settings)


def test_each_head_knows_its_channels_and_label_context() -> None:
    affs, lsds = head(AFFS), head(LSDS)
    assert (type(affs), affs.channels) == (AffinitiesHead, 3)
    assert affs.label_context((10, 10, 10)) == ((1, 3, 0), (0, 0, 2))
    assert (type(lsds), lsds.channels) == (LsdsHead, 10)
    assert lsds.label_context((40, 10, 8)) == ((3, 9, 12), (3, 9, 12))


def test_affinities_tell_their_offsets_to_the_array() -> None:
    assert head(AFFS).array_attributes() == {"neighborhood": AFFS["neighborhood"]}
    assert head(LSDS).array_attributes() == {}


def test_the_activation_is_applied_in_one_place() -> None:
    logits = torch.tensor([-2.0, 0.0, 3.0])

    class Image(LsdsHead):
        activation = "tanh"

    assert torch.equal(head(AFFS).activate(logits), torch.sigmoid(logits))
    image = Image(**LSDS)
    assert torch.equal(image.activate(logits), torch.tanh(logits))
    assert torch.equal(image.to_unit_range(torch.tensor([-1.0, 0.0, 1.0])), torch.tensor([0.0, 0.5, 1.0]))
    with pytest.raises(ValidationError, match="the loss 'bce' needs a sigmoid, but lsds has tanh"):
        Image(**LSDS, loss="bce")


@pytest.mark.parametrize("name", sorted(RESERVED_NAMES))
def test_columns_of_the_log_are_no_names_of_heads(name: str) -> None:
    with pytest.raises(ValidationError, match=f"'{name}' is a column of losses.csv"):
        TypeAdapter(Heads).validate_python({name: AFFS})


def test_malis_is_a_loss_of_affinities() -> None:
    with pytest.raises(ValidationError, match="the loss 'malis' is one of affinities, expected another for lsds"):
        head(LSDS | {"loss": "malis"})


@pytest.mark.parametrize("key", ["switch_to", "then"])
def test_a_loss_switch_goes_by_its_old_name_too(key: str) -> None:
    switching = head(AFFS | {key: {"iteration": 5, "loss": "malis"}})
    assert switching.settings_at(5).loss == "weighted_mse"
    assert (switching.settings_at(6).loss, switching.settings_at(6).weights) == ("malis", "mask")
    assert "switch_to" in switching.model_dump()
    assert switching.architecture() == {"target": "affinities", "neighborhood": [[-1, 0, 0], [0, -3, 0], [0, 0, 2]]}


def test_lsd_weights_follow_the_labels_and_the_mask() -> None:
    labels = torch.zeros(1, 3, 3, 3, dtype=torch.int32)
    labels[0, 1, 1, 1] = 4
    mask = torch.ones(1, 3, 3, 3, dtype=torch.uint8)
    mask[0, 0] = 0
    crop = LabelCrop(labels, mask, (slice(None),) * 3, (10, 10, 10))
    counted = {w: int(head(LSDS | {"weights": w, "downsample": 1}).make(crop).weights[0, 0].sum())
               for w in ("mask", "labelled", "labelled_or_unmasked")}  # fmt: skip
    assert counted == {"mask": 18, "labelled": 1, "labelled_or_unmasked": 10}


@pytest.mark.parametrize(
    "name", ["forward", "keys", "training", "type", "float", "pop", "state_dict", "raw", "waiting_share", "x" * 65]
)
def test_names_that_torch_or_the_log_uses(name: str) -> None:
    """The layer of a head is an attribute of a module, where `forward` is torch's own."""
    with pytest.raises(ValueError, match=r"expected another name for a head|at most 64 characters"):
        TypeAdapter(Heads).validate_python({name: {"target": "lsds", "sigma": 80}})


@pytest.mark.parametrize("name", ["class", "lambda", "none", "true", "a", "unet", "heads", "weight", "settings"])
def test_names_that_only_look_special(name: str) -> None:
    heads = TypeAdapter(Heads).validate_python({name: {"target": "lsds", "sigma": 80}})
    unet = UNetSettings(num_fmaps=1, fmap_inc_factor=1, downsample_factors=((1, 1, 1),))
    assert f"heads.{name}.weight" in Network(unet, 1, {name: heads[name].channels}).state_dict()


@pytest.mark.parametrize("offset", [2**70, -(2**70), 10_001])
def test_offsets_without_end(offset: int) -> None:
    with pytest.raises(ValueError, match=r"less than or equal to 10000|greater than or equal to -10000"):
        AffinitiesHead(target="affinities", neighborhood=[(0, offset, 0)])


def test_instances_are_decoded_from_the_first_head_of_each_target_unless_there_are_affinities() -> None:
    heads = {name: head({"target": target}) for name, target in
             (("a", "contour"), ("b", "distance"), ("c", "foreground"), ("d", "foreground"))}  # fmt: skip
    assert instance_heads(heads) == {"foreground": "c", "contour": "a", "distance": "b"}
    del heads["b"]
    assert instance_heads(heads) == {"foreground": "c", "contour": "a"}
    assert instance_heads(heads | {"affs": head(AFFS)}) == {}
    assert instance_heads({"c": heads["c"]}) == {}
