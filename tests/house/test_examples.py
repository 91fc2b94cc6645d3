"""The examples that --help prints: command lines that parse, of folders, data sets and volumes that exist."""

import contextlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from builders import ROOT, command_of, of_project
from emsuite.config.dataset import load_dataset

SCRIPTS = [*of_project("0[0-9]_*/*.py"), ROOT / "containers/fetch_images.py"]


def examples(script: Path) -> Iterator[tuple[Path, list[str]]]:
    """The folder that each printed example is run in, and its words behind the script's name."""
    printed = (command_of(script).epilog or "").partition("Example:\n")[2].replace("\\\n", " ")
    for line in printed.strip().splitlines():
        folder, _, command = line.rpartition(" && ")
        words, here = shlex.split(command), ROOT / folder.strip().removeprefix("cd ")
        place = next(index for index, word in enumerate(words) if word.endswith(script.name))
        assert (here / words[place]).resolve() == script, line
        yield here, words[place + 1 :]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: str(path.relative_to(ROOT)))
@pytest.mark.usefixtures("logger")
def test_printed_examples_can_be_typed(script: Path) -> None:
    found = list(examples(script))
    assert found
    for folder, words in found:
        with contextlib.chdir(folder):
            context = command_of(script).make_context(script.name, list(words))
        for value in [*context.params.values(), *words]:
            check(str(value))
        check_dataset(context)


def check(word: str) -> None:
    """What a word names inside the project exists; of data, the data set has such a volume."""
    if network := re.match(r"(?:.*/)?02_train/(\w+)/(\w+)", word):
        assert (ROOT / "02_train" / network[1] / network[2] / "network.yaml").is_file(), word
    if volume := re.match(r"data/funke/(\w+)/training/([\w-]+)\.zarr", word):
        dataset = load_dataset(volume[1], ROOT / "01_data/datasets")
        assert volume[2] in dataset.volumes or dataset.synthesis, word


def check_dataset(context: click.Context) -> None:
    name = context.params.get("dataset")
    if name and not name.endswith(".yaml"):
        load_dataset(name, ROOT / "01_data/datasets")
        for network in context.params.get("networks", ()):
            assert (ROOT / "02_train" / name / network / "network.yaml").is_file()
