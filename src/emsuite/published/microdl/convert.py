"""microDL's configurations into those of this suite: `preprocess.yaml`, `network.yaml`, and what is not carried over.

    config_preprocess.yml        input_dir, masks, tile, ...        ->  preprocess.yaml
    config_train.yml             dataset, trainer, network          ->  network.yaml, and the split of preprocess.yaml
                                                                        not_carried_over.txt

Source of the keys: czbiohub/microDL 04fc647 (2019), and a few of later versions.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from emsuite.common.documents import read_text
from emsuite.common.errors import BadInput
from emsuite.common.files import sha256, write_text
from emsuite.common.settings import read_yaml, validate
from emsuite.config.network import NetworkConfig
from emsuite.plates.settings import PreprocessSettings
from emsuite.published.microdl.keys import Keys, Notes
from emsuite.published.microdl.network import translate_dataset, translate_network
from emsuite.published.microdl.preprocessing import Preprocessing, translate_preprocessing
from emsuite.published.microdl.training import translate_augmentations, translate_trainer

PREPROCESS, NETWORK, LEFT_OUT = "preprocess.yaml", "network.yaml", "not_carried_over.txt"
_TRAINING = {"dataset", "trainer", "network"}
_INFERENCE = {"model_dir", "model_fname", "train_config", "image_dir", "images"}
_UNKNOWN_PIXEL = [1000, 1000, 1000]
HEAD = "image"
"""The name of the one head."""


@dataclass
class Translation:
    """The files of a translation, by name, and what is not carried over."""

    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    notes: Notes = field(default_factory=Notes)


def translate(paths: Sequence[Path], steps: int = 100) -> Translation:
    """Translate configurations of preprocessing, of training, or one of each, which belong together.

    Args:
        paths: yaml files.
        steps: iterations of an epoch, which microDL derives from the number of tiles.

    Raises:
        BadInput: a file is no such configuration, two are of one kind, or a value is of the wrong kind.
    """
    kinds: dict[str, tuple[Path, dict[str, Any]]] = {}
    for path in paths:
        content = read_yaml(path)
        kind = _kind(path, content)
        if kind in kinds:
            raise BadInput(f"{path}: a second configuration of {kind}, beside {kinds[kind][0]}; expected one of each")
        kinds[kind] = (path, content)
    result, preprocessing = Translation(), None
    if "preprocessing" in kinds:
        path, content = kinds["preprocessing"]
        with _naming(path):
            preprocessing = translate_preprocessing(Keys(content, path, result.notes))
        result.files[PREPROCESS] = preprocessing.settings
    if "training" in kinds:
        path, content = kinds["training"]
        with _naming(path):
            _translate_training(Keys(content, path, result.notes), preprocessing, steps, result)
    _check(result, [path for path, _ in kinds.values()])
    result.notes.notes.sort(key=lambda note: note.why.startswith("not needed"))
    return result


class _naming:
    """Within the block, messages of BadInput name a file."""

    def __init__(self, path: Path):
        self._path = str(path)

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, BadInput) and not str(error).startswith(self._path):
            raise BadInput(f"{self._path}: {error}") from None


def _kind(path: Path, content: dict[str, Any]) -> str:
    if "network" in content:
        if missing := sorted(_TRAINING - content.keys()):
            raise BadInput(
                f"{path}: has no `{missing[0]}`, expected dataset, trainer and network of microDL's training"
            )
        return "training"
    if "input_dir" in content:
        return "preprocessing"
    if _INFERENCE & content.keys():
        raise BadInput(
            f"{path}: a configuration of inference, whose keys are options here; expected one of preprocessing or "
            "training"
        )
    raise BadInput(f"{path}: has neither input_dir nor network, expected microDL's preprocessing or training")


def _translate_training(keys: Keys, before: Preprocessing | None, steps: int, result: Translation) -> None:
    output = str(before.settings["output"]) if before else None
    dataset = keys.section("dataset")
    channels = translate_dataset(dataset, output, before.channels if before else None)
    network = translate_network(keys.section("network"))
    trainer_keys = keys.section("trainer")
    validates = channels.split is None or channels.split.get("val") != 0
    trainer = translate_trainer(trainer_keys, steps, validates)
    augment = translate_augmentations(dataset) or translate_augmentations(trainer_keys)
    dataset.finish()
    trainer_keys.finish()
    keys.leave("verbose", "not needed, the log says what is done")
    keys.finish()
    size = channels.size or (before.tile if before else None) or (256, 256)
    shape = [network.depth, *size]
    training = trainer.training | {"input_shape": shape, "sampling": {}, "augment": augment}
    training |= {"initial_weights": network.initial_weights} if network.initial_weights else {}
    head, unet = channels.head | trainer.head, network.unet
    if head["loss"] == "bce":
        unet = {key: value for key, value in unet.items() if key != "final_activation"}  # the head has a sigmoid
    result.files[NETWORK] = {
        "voxel_size": _UNKNOWN_PIXEL,
        "plate": channels.plate,
        "unet": unet,
        "heads": {HEAD: head},
        "training": training,
        "prediction": {"input_shape": shape},
    }
    if before and channels.split:
        before.settings["split"] = channels.split
    elif channels.split:
        told = ", ".join(f"{key}: {value}" for key, value in channels.split.items())
        result.notes.add("dataset.split_ratio", channels.split, f"belongs into preprocessing, `split: {{{told}}}`")


def _check(result: Translation, paths: Sequence[Path]) -> None:
    """Raise BadInput unless this suite takes the files."""
    where = " and ".join(map(str, paths))
    for name, content in result.files.items():
        if name == PREPROCESS:
            validate(PreprocessSettings, content, f"{where}: {name}")
        else:
            validate(NetworkConfig, {"dataset": "microdl", "network": "imported"} | content, f"{where}: {name}")


def write_translation(result: Translation, out: Path, sources: Sequence[Path]) -> None:
    """Write the files of a translation into a folder; raise BadInput if another file of such a name lies there.

    Args:
        result: what to write.
        out: the folder, which becomes that of the network.
        sources: the configurations, named with their digest at the head of each file.
    """
    told = "".join(f"# microDL's {source.name}, SHA-256 {sha256(source)}\n" for source in sources)
    texts = {name: f"# Translated; docs/microdl.md explains every key. From\n{told}{_yaml(content)}"
             for name, content in result.files.items()}  # fmt: skip
    texts[LEFT_OUT] = told + "".join(f"{note}\n" for note in result.notes.notes)
    for name, text in texts.items():
        path = out / name
        if path.exists() and read_text(path, "a file of an earlier translation") != text:
            raise BadInput(f"{path}: is there already and differs; remove it or choose another folder")
    for name, text in texts.items():
        write_text(out / name, text)


def _yaml(content: Mapping[str, Any]) -> str:
    """Return yaml text in the order of its keys, lists of plain values on one line."""
    return yaml.dump(dict(content), Dumper=_Dumper, sort_keys=False, default_flow_style=None, width=110)


class _Dumper(yaml.SafeDumper):
    """Writes lists without keys on one line, and what occurs twice in full, not as a reference."""

    def ignore_aliases(self, data: Any) -> bool:
        """Return whether a value is written in full: always."""
        return True

    def represent_list(self, data: Any) -> yaml.SequenceNode:
        """Return the node of a list: on one line unless keys lie in it."""
        return self.represent_sequence("tag:yaml.org,2002:seq", data, flow_style=not _has_keys(data))


def _has_keys(data: Any) -> bool:
    return isinstance(data, dict) or (isinstance(data, list | tuple) and any(map(_has_keys, data)))


_Dumper.add_representer(list, _Dumper.represent_list)
