"""The pages for people: links, commands, snippets and tables of keys agree with the code."""

import ast
import contextlib
import re
import shlex
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import click
import h5py
import numpy as np
import pytest
import yaml
from skimage.io import imsave

from builders import ROOT, command_of
from emsuite import __version__
from emsuite.common.settings import Settings
from emsuite.config.dataset import Dataset, load_dataset
from emsuite.config.network import NetworkConfig, load_network
from emsuite.config.transfer import AdversarialTerm, Domains, ImageTerm, PassWeights, TransferLosses, TransferSettings
from emsuite.data.derived.degradations import DEGRADATIONS
from emsuite.data.transfer.patch_filter import Likeness, PatchFilter
from emsuite.data.transfer.settings import Box, DomainSettings, DomainVolume, NormalizedChange, UnpairedSettings
from emsuite.evaluation.metrics import METRICS
from emsuite.io.volume import create_volume, open_volume
from emsuite.losses.adversarial import ADVERSARIAL
from emsuite.losses.cycle import CYCLE
from emsuite.losses.registry import LOSSES
from emsuite.models.receptive_field import output_shape, receptive_field
from emsuite.models.transfer.settings import DiscriminatorSettings, GeneratorSettings, Prior
from emsuite.plates.settings import PreprocessSettings
from emsuite.plates.synthesize import LabelFreeSettings, StainsSettings
from emsuite.segmentation.instances.settings import DECODINGS, InstanceSettings
from emsuite.segmentation.merge_hierarchy import MERGE_FUNCTIONS
from emsuite.segmentation.settings import SegmentationSettings
from emsuite.workflow.plates import PlateConfig
from emsuite.workflow.settings import WorkflowConfig
from emsuite.workflow.transfer import TransferConfig

DOCS = ROOT / "docs"
LIBRARY = ROOT / "src/emsuite"
PAGES = [*sorted(ROOT.glob("*.md")), *sorted(DOCS.glob("*.md"))]


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of one language; without one they are commands, or drawings."""
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", text_of(page), re.MULTILINE | re.DOTALL)
    return [content for named, content in fenced if named == language]


def commands() -> Iterator[tuple[str, list[str]]]:
    """Every command in a block: the page's name, and the words."""
    for page in PAGES:
        for block in blocks(page, ""):
            for line in block.replace("\\\n", " ").splitlines():
                if line.startswith(("python ", "snakemake ", "make ", "cp ", "pytest ", ".venv/bin/")):
                    yield page.name, shlex.split(line, comments=True)


COMMANDS = list(commands())


def of_kind(program: str) -> list[Any]:
    return [
        pytest.param(words[1:], id=f"{page}: {' '.join(words)[:60]}")
        for page, words in COMMANDS
        if words[0].removeprefix(".venv/bin/") == program
    ]


@pytest.mark.parametrize("words", of_kind("python"))
def test_shown_commands_are_understood(words: list[str], logger: None) -> None:
    script = ROOT / words[0]
    assert script.exists()
    with contextlib.suppress(click.exceptions.Exit):  # --help
        command_of(script).make_context(script.name, words[1:])


@pytest.mark.parametrize("words", of_kind("snakemake"))
def test_shown_workflow_settings_exist(words: list[str]) -> None:
    given = words[words.index("--config") + 1 :] if "--config" in words else []
    settings = [word.partition("=") for word in given if "=" in word]
    others = {"plates.smk": PlateConfig, "transfer.smk": TransferConfig}
    config = next((others[word] for word in words if word in others), WorkflowConfig)
    assert {key for key, _, _ in settings} <= config.model_fields.keys()


@pytest.mark.parametrize("words", of_kind("make"))
def test_shown_targets_exist(words: list[str]) -> None:
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert words[0] in targets


def test_what_shown_commands_leave_is_ignored_by_git() -> None:
    left = ["report.zip", "prediction.zarr/affs/0.0.0", "prediction.zarr.manifest.json", "containers/emsuite.sif",
            "emsuite.sif", "containers/lsd_legacy.img", "containers/.emsuite.sif.fetching/0", "data/a", "results/a",
            "02_train/mine/small/log/losses.csv", "02_train/zebrafinch/mtlsd/checkpoints/a.pt", "mine/cube.zarr/a",
            "mine/cube.skeletons/1.swc", "mine/cube.zarr.masks.json", ".snakemake/log/a"]  # fmt: skip
    command = ["git", "check-ignore", "--no-index", "--stdin"]
    done = subprocess.run(command, cwd=ROOT, input="\n".join(left), capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == left
    source = subprocess.run(["git", "ls-files", "-ci", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True,
                            check=True)  # fmt: skip
    assert source.stdout == "", "git would not see what is new here"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_paths_lead_somewhere(page: Path) -> None:
    text = text_of(page)
    links = [link for link in re.findall(r"\]\(([^)#]+)[^)]*\)", text) if not link.startswith(("http", "mailto"))]
    links += re.findall(r'src="([^"]+)"', text)
    assert [link for link in links if not (page.parent / link).exists()] == []
    packages = "|".join(path.parent.name for path in LIBRARY.glob("*/__init__.py"))
    named = re.findall(rf"`((?:0[0-9]_\w+|src|tests|docs|benchmarks|containers|\.ci|{packages})/[\w./-]+)`", text)
    made = ("mine", "DATASET", "NAME", "PACKAGE", "small_lsds", "emsuite.sif")
    missing = [
        name
        for name in named
        if not any((root / name).exists() for root in (ROOT, LIBRARY)) and not any(word in name for word in made)
    ]
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_speak_of_the_suite_alone(page: Path) -> None:
    odd = re.compile(r"/work\b|/tmp\b|/root\b|NOTES\.md|\bsessions?\b|\bhelpers?\b", re.IGNORECASE)
    assert odd.findall(text_of(page)) == []


def test_the_map_names_every_package_on_its_floor() -> None:
    text = text_of(ROOT / "CONTRIBUTING.md")
    packages = {path.parent.name for path in LIBRARY.glob("*/__init__.py")}
    assert tables(ROOT / "CONTRIBUTING.md")["The map"].keys() == packages
    (drawn,) = re.findall(r"^```\n(8 .*?)^```$", text, re.MULTILINE | re.DOTALL)
    floors = {int(line.split()[0]): set(line.split()[1:]) for line in drawn.splitlines()[1:]}
    code = ast.parse((ROOT / "tests/house/test_layers.py").read_text())
    (tested,) = [
        ast.literal_eval(node.value)
        for node in code.body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == "FLOORS"
    ]
    assert floors == dict(enumerate(tested))


def test_hooks_run_the_pinned_programs_and_download_nothing() -> None:
    (source,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert source["repo"] == "local"
    lock = (ROOT / "requirements.lock").read_text()
    for hook in source["hooks"]:
        program = hook["entry"].split()[0]
        assert hook["language"] == "system"
        assert re.search(rf"^{program.removeprefix('.venv/bin/')}==", lock, re.MULTILINE), program


def test_issue_forms_are_complete() -> None:
    for path in sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("*_*.yml")):
        form = yaml.safe_load(path.read_text())
        assert {"name", "description", "body"} <= form.keys()
        questions = [part for part in form["body"] if part["type"] != "markdown"]
        assert len({part["id"] for part in questions}) == len(questions) > 0
        assert all(part["attributes"]["label"] for part in questions)


def test_the_changelog_knows_the_version() -> None:
    assert f"## [{__version__}]" in text_of(ROOT / "CHANGELOG.md")


def tables(page: Path) -> dict[str, dict[str, str]]:
    """The words in backticks in the first column of a page's tables with the second column, by the heading above."""
    found: dict[str, dict[str, str]] = {}
    heading = ""
    for line in text_of(page).splitlines():
        if line.startswith("#"):
            heading = line.lstrip("# ")
        elif line.startswith("| `"):
            first, second = (cell.strip() for cell in line.split("|")[1:3])
            found.setdefault(heading, {}).update(dict.fromkeys(re.findall(r"`(\w+)`", first), second))
    return found


def check_table(documented: dict[str, str], model: type[Settings], left_out: frozenset[str] = frozenset()) -> None:
    """The keys of a table are those of `model`; numbers and words in backticks are the true defaults."""
    assert documented.keys() == model.model_fields.keys() - left_out
    for key, shown in documented.items():
        default = model.model_fields[key].default
        if re.fullmatch(r"[\d.e, -]+", shown):
            assert tuple(map(float, shown.split(", "))) == tuple(np.atleast_1d(default)), key
        elif re.fullmatch(r"`[^`]+`", shown) and isinstance(default, str | bool):
            assert yaml.safe_load(shown.strip("`")) == default, key
        elif model.model_fields[key].is_required():
            assert shown == "", key


def settings_within(kind: Any) -> Iterator[type[Settings]]:
    if isinstance(kind, type) and issubclass(kind, Settings):
        yield kind
    for inner in get_args(kind):
        yield from settings_within(inner)


def headings(model: type[Settings], path: str = "") -> Iterator[tuple[str, type[Settings]]]:
    """Where docs/add_a_network.md says the keys of `model` and of all settings in it.

    Domain transfer has pages of its own.
    """
    if model is TransferSettings:
        return
    tag = next((get_args(field.annotation)[0] for key, field in model.model_fields.items() if key == "target"), None)
    name = next((get_args(field.annotation)[0] for key, field in model.model_fields.items() if key == "name"), None)
    if name:
        yield f"`name: {name}`", model
    else:
        yield (f"`{path}`" if path else "Keys") + (f" with `target: {tag}`" if tag else ""), model
    for key, field in model.model_fields.items():
        inside = f"{path}.{key}".lstrip(".") + (".NAME" if key == "heads" and not path else "")
        for inner in settings_within(field.annotation):
            yield from headings(inner, inside)


def test_every_key_of_a_network_is_documented() -> None:
    documented = tables(DOCS / "add_a_network.md")
    for heading, model in headings(NetworkConfig):
        assert heading in documented
        if heading == "Keys":
            assert documented[heading].keys() == model.model_fields.keys()
        else:
            check_table(documented[heading], model, frozenset({"name"}))
    assert all(f"`{name}`" in text_of(DOCS / "add_a_network.md") for name in LOSSES)


def test_every_key_of_domain_transfer_is_documented() -> None:
    documented = tables(DOCS / "transfer.md")
    for heading, model in (
        ("`transfer`", TransferSettings),
        ("`domains`", Domains),
        ("`losses`", TransferLosses),
        ("`adversarial`", AdversarialTerm),
        ("`cycle` and `identity`", ImageTerm),
        ("`labels` and `heads`", PassWeights),
    ):
        check_table(documented[heading], model)


def test_every_key_of_domain_transfers_networks_is_documented() -> None:
    documented = tables(DOCS / "transfer_networks.md")
    kinds = list(settings_within(GeneratorSettings | DiscriminatorSettings))
    assert len(kinds) == 7
    for model in kinds:
        check_table(documented[f"`kind: {get_args(model.model_fields['kind'].annotation)[0]}`"], model)
    check_table(documented["`prior`"], Prior)
    assert documented["Losses"].keys() == ADVERSARIAL.keys() | CYCLE.keys()


def test_every_key_of_a_data_set_is_documented() -> None:
    documented = tables(DOCS / "own_volume.md")
    assert documented["2. Describe it"].keys() == Dataset.model_fields.keys()


def test_every_key_of_a_plate_is_documented() -> None:
    documented = tables(DOCS / "microdl.md")
    check_table(documented["Keys of a file"], PreprocessSettings)
    for key, field in PreprocessSettings.model_fields.items():
        for step in settings_within(field.annotation):
            check_table(documented[f"`{key}`"], step)
    check_table(documented["Label-free cells"], LabelFreeSettings)
    check_table(documented["Stains"], StainsSettings)


def test_every_key_of_data_for_domain_transfer_is_documented() -> None:
    documented = tables(DOCS / "transfer_data.md")
    for heading, model in (
        ("A domain", DomainSettings),
        ("Volumes of a domain", DomainVolume),
        ("Boxes", Box),
        ("Changes of normalized samples", UnpairedSettings),
        ("`change`", NormalizedChange),
        ("Keys of the filter", PatchFilter),
        ("`likeness`", Likeness),
        *((f"`{name}`", look) for name, look in DEGRADATIONS.items()),
    ):
        check_table(documented[heading], model)


def test_every_setting_of_the_segmentation_is_documented() -> None:
    documented = tables(DOCS / "segmentation.md")
    check_table(documented["Settings"], SegmentationSettings)
    of_instances = tables(DOCS / "instances.md")
    check_table(of_instances["Keys"], InstanceSettings)
    assert of_instances["Decoding"].keys() == DECODINGS.keys()
    names = {name.replace("10", "Q") for name in MERGE_FUNCTIONS if not re.search("25|50|75|90", name)}
    assert documented["Merge functions"].keys() == names
    assert documented["Scores"].keys() == {"threshold", *METRICS}
    rows = [f"| `{name}` | {metric.unit} | {metric.meaning} |" for name, metric in METRICS.items()]
    assert [row for row in rows if row not in text_of(DOCS / "segmentation.md")] == []


def test_every_key_of_the_workflow_is_in_its_file() -> None:
    text = (ROOT / "config/config.yaml").read_text()
    keys = re.findall(r"^(?:# )?(\w+): .*", text, re.MULTILINE)
    assert sorted(keys) == sorted(WorkflowConfig.model_fields)
    keys = re.findall(r"^(\w+):", (ROOT / "config/plates.yaml").read_text(), re.MULTILINE)
    assert sorted(keys) == sorted(PlateConfig.model_fields)
    keys = re.findall(r"^(\w+):", (ROOT / "config/transfer.yaml").read_text(), re.MULTILINE)
    assert sorted(keys) == sorted(TransferConfig.model_fields)


def test_every_dependency_has_its_reason() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["workflow"]]
    names = {re.split("[<>=~!\\[]", requirement)[0] for requirement in wanted}
    rows = re.findall(r"^\| ([\w., -]+) \|", text_of(DOCS / "decisions.md"), re.MULTILINE)
    assert names <= {name for row in rows for name in row.split(", ")}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder as the project's root, with the folder of data sets that the pages write to."""
    (tmp_path / "01_data/datasets").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_recipes_of_the_readme_give_the_shapes_that_they_state(project: Path) -> None:
    """Every `name = ...  # (shape) dtype` of a python block is true, and a number behind `#` is the value."""
    shape = (160, 250, 250)
    volume = create_volume("trvol-250-2.zarr/volumes/raw", shape, np.uint8, (8, 8, 8), (0, 0, 0))
    assert volume.shape == shape
    doors, stated = set(), 0
    for snippet in blocks(ROOT / "README.md", "python"):
        names: dict[str, Any] = {}
        exec(compile(snippet, "README.md", "exec"), names)
        doors |= set(re.findall(r"^from emsuite\.(\w+) import", snippet, re.MULTILINE))
        for name, shown, dtype in re.findall(r"^(\w+) = .*  # (\([\d, ]+\)) (\w+)", snippet, re.MULTILINE):
            stated += 1
            assert tuple(names[name].shape) == tuple(map(int, re.findall(r"\d+", shown))), name
            assert str(names[name].dtype).removeprefix("torch.") == dtype, name
        for name, value in re.findall(r"^(\w+) = .*  # ([\d.]+) ", snippet, re.MULTILINE):
            stated += 1
            assert names[name] == float(value), name
    assert doors == {"affinities", "lsds", "scores", "unet", "volume"}
    assert stated == 7


def test_a_volume_of_ones_own_by_the_page(project: Path) -> None:
    raw = np.random.default_rng(0).integers(0, 256, (160, 20, 30), np.uint8)
    imsave("raw.tif", raw, check_contrast=False)
    imsave("labels.tif", (raw // 64).astype(np.uint16), check_contrast=False)
    with h5py.File("large.h5", "w") as file:
        file["raw"] = raw
    for snippet in blocks(DOCS / "own_volume.md", "python"):
        exec(compile(snippet, "own_volume.md", "exec"), {})
    for path in ("mine/cube.zarr/volumes/raw", "mine/large.zarr/volumes/raw"):
        np.testing.assert_array_equal(open_volume(path).read(), raw)
    labels = open_volume("mine/cube.zarr/volumes/labels/neuron_ids")
    np.testing.assert_array_equal(labels.read(), raw // 64)

    (described,) = blocks(DOCS / "own_volume.md", "yaml")
    (project / "01_data/datasets/mine.yaml").write_text(described)
    dataset = load_dataset("mine", project / "01_data/datasets")
    assert dataset.volume_path("cube", project / "data").resolve() == (project / "mine/cube.zarr").resolve()
    assert tuple(labels.voxel_size) == dataset.voxel_size


def test_a_network_of_ones_own_by_the_page(project: Path) -> None:
    folder = project / "02_train/fib25/small_lsds"
    folder.mkdir(parents=True)
    for file in ("02_train/fib25/dataset.yaml", "01_data/datasets/fib25.yaml"):
        (project / file).parent.mkdir(parents=True, exist_ok=True)
        (project / file).write_text((ROOT / file).read_text())
    (shown,) = blocks(DOCS / "add_a_network.md", "yaml")
    (folder / "network.yaml").write_text(shown)
    config = load_network(folder)
    for shape in (config.training.input_shape, config.prediction.input_shape):
        assert output_shape(config.unet, shape) == shape
    assert receptive_field(config.unet).step(config.prediction.input_shape) == (128, 128, 128)
    assert set(config.heads) == {"affs", "lsds"}
