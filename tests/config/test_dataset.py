from pathlib import Path

import pytest
from pydantic import ValidationError

from builders import ROOT, of_project
from emsuite.common.errors import BadInput
from emsuite.config.dataset import Dataset, Split, dataset_names, dataset_of, load_dataset, volume_name
from emsuite.io.regions import parse_roi
from emsuite.io.volume import open_volume

FOLDER = ROOT / "01_data/datasets"

FILES = "files:\n  first: {url: 'https://a/b', sha256: " + "a" * 64 + "}\n"
OWN = """
name: own
voxel_size: [40, 4, 4]
volumes: [first, second.zarr]
"""


def write(folder: Path, text: str, name: str = "own") -> Path:
    path = folder / f"{name}.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("name", "volumes", "voxel_size", "unlabelled"),
    [
        ("fib25", 4, (8, 8, 8), ()),
        ("hemi", 8, (8, 8, 8), (2**64 - 3,)),
        ("zebrafinch", 33, (20, 9, 9), ()),
    ],
)
def test_published_data_sets(name: str, volumes: int, voxel_size: tuple[int, ...], unlabelled: tuple[int, ...]) -> None:
    data = load_dataset(name, FOLDER)
    assert len(data.volumes) == volumes
    assert data.voxel_size == voxel_size
    assert data.mask.unlabelled == unlabelled
    assert data.bucket == "open-neurodata"
    assert data.prefix == f"funke/{name}/training"
    assert len(data.default_volumes) == 1
    assert data.citations
    assert data.licence


def test_every_file_is_a_data_set_that_trains_and_tests() -> None:
    names = [path.stem for path in of_project("01_data/datasets/*.yaml")]
    assert names == ["cremi", "cremi_phantom", "fib25", "fib25_second_look", "hemi", "phantom", "vnc", "zebrafinch"]
    assert set(names) <= set(dataset_names(FOLDER))
    for name in names:
        data = load_dataset(name, FOLDER)
        assert data.named_split().train
        assert data.named_split().test


def test_cremis_samples_are_files_on_a_web_server() -> None:
    data = load_dataset("cremi", FOLDER)
    assert data.quick_volumes == tuple(f"sample_{letter}_padded_20160501" for letter in "ABC")
    assert [part.volume[7] for part in data.named_split("published").train] == ["A", "B", "C"]
    assert data.named_split("published").probabilities is None, "all are drawn alike"
    for volume, file in data.files.items():
        assert file.url == f"https://cremi.org/static/data/{volume}.hdf"
        assert data.volume_path(f"{volume}.hdf", Path("d")) == Path(f"d/funke/cremi/training/{volume}.hdf")
    assert len({file.sha256 for file in data.files.values()}) == 6


def test_a_shared_folder_has_files_where_it_has_folders(tmp_path: Path) -> None:
    data = load_dataset("cremi", FOLDER)
    place = tmp_path / "cremi/training/sample_A_20160501.hdf"
    place.mkdir(parents=True)
    with pytest.raises(BadInput, match=r"has no sample_A_20160501\.hdf; looked at"):
        data.find_in(tmp_path, "sample_A_20160501")
    place.rmdir()
    place.write_bytes(b"")
    assert data.find_in(tmp_path, "sample_A_20160501") == place


def test_phantom_is_synthesized() -> None:
    data = load_dataset("phantom", FOLDER)
    assert data.bucket is None
    words = data.synthesis_options("phantom-train")
    assert words[:2] == ["--voxel-size", "8,8,8"]
    assert "--seed" in words
    assert data.synthesis_options("phantom-test") != words


def test_fib25_split_cuts_the_slab_in_two(fib25_slab: Path) -> None:
    data = load_dataset("fib25", FOLDER)
    split = data.named_split()
    assert split == data.named_split("slab")
    (train,), (test,) = split.train, split.test
    raw = open_volume(fib25_slab / "volumes/raw")
    train_roi, test_roi = parse_roi(train.roi or "", raw), parse_roi(test.roi or "", raw)
    assert not train_roi.intersects(test_roi)
    assert tuple(train_roi.shape / raw.voxel_size) == (130, 250, 250)
    assert tuple(test_roi.shape / raw.voxel_size) == (30, 250, 250)


def test_networks_that_name_no_split_get_the_first_or_only_one(tmp_path: Path) -> None:
    train = {"volume": "first"}, {"volume": "second"}
    one = Dataset(name="x", voxel_size=(1, 1, 1), volumes=("first", "second"), split={"train": train[:1]})
    assert one.named_split() == one.split
    assert one.split.probabilities is None
    with pytest.raises(BadInput, match="data set x: no split 'published'; it has one without a name"):
        one.named_split("published")
    content = {
        "b": {"train": train[:1]},
        "a": {"train": [part | {"probability": p} for part, p in zip(train, (1, 3), strict=True)]},
    }
    several = Dataset(name="x", voxel_size=(1, 1, 1), volumes=("first", "second"), splits=content)
    assert several.named_split() == several.named_split("b") == Split.model_validate(content["b"])
    assert several.named_split("a").probabilities == (1, 3)
    with pytest.raises(BadInput, match="data set x: no split 'c'; it has b, a"):
        several.named_split("c")
    assert Dataset.model_validate(several.model_dump()) == several


def test_own_data_set_needs_few_lines(tmp_path: Path) -> None:
    data = load_dataset(write(tmp_path, OWN), FOLDER)
    assert data.volumes == ("first", "second")
    assert data.default_volumes == ("first",)
    assert data.volume_path("second.zarr", Path("/d")) == Path("/d/funke/own/training/second.zarr")


def test_own_folder_counts_from_the_yaml_file(tmp_path: Path) -> None:
    data = load_dataset(write(tmp_path, OWN + "folder: volumes\n"), FOLDER)
    assert data.volume_path("first", Path("/d")) == tmp_path / "volumes/first.zarr"


def test_names_with_and_without_suffix_are_the_same() -> None:
    assert volume_name("a.zarr") == volume_name("a") == volume_name("a.zarr/") == "a"
    data = load_dataset("fib25", FOLDER)
    assert data.choose(("trvol-250-1.zarr", "trvol-250-1")) == ("trvol-250-1",)
    assert data.choose() == ("trvol-250-2",)
    assert data.choose(everything=True) == data.volumes


def test_choosing_badly() -> None:
    data = load_dataset("fib25", FOLDER)
    with pytest.raises(BadInput, match="no volume 'nope'; it has tstvol-520-1, "):
        data.choose(("nope",))
    with pytest.raises(BadInput, match="expected one of the two"):
        data.choose(("trvol-250-1",), everything=True)


def test_unknown_data_set_lists_the_known() -> None:
    with pytest.raises(BadInput, match=r"no data set 'mouse'; there are .*fib25, .*hemi, .*phantom, .*zebrafinch"):
        load_dataset("mouse", FOLDER)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("licens: CC0\n", "own.yaml:5: licens: unknown key"),
        ("mask: {unlabelled: [-3]}\n", "own.yaml:5: mask.unlabelled.0: .*greater than or equal to 0"),
        ("split: {train: [{volume: third}]}\n", "split: third is none of the data set's volumes"),
        ("split: {train: [{volume: first}], test: [{volume: first}]}\n", "first is in train and in test"),
        ("split: {train: [{volume: first}], validation: [{volume: first}]}\n", "first is in train and in validation"),
        ("split: {train: [{volume: first, roi: '0:8'}]}\n", "roi: expected three ranges in nm"),
        (
            "split: {train: [{volume: first}], test: [{volume: first, roi: '0:8,:,:'}]}\n",
            "first is in train and in test",
        ),
        ("splits: {a: {test: [{volume: third}]}}\n", "splits: third is none of the data set's volumes"),
        (
            "splits: {a: {train: [{volume: first}], test: [{volume: first}]}}\n",
            "splits.a: first is in train and in test",
        ),
        ("splits: {a b: {}}\n", "splits.a b: String should match pattern"),
        ("split: {train: [{volume: first}]}\nsplits: {a: {}}\n", "split and splits: expected one of the two"),
        (
            "split: {train: [{volume: first, probability: 1}, {volume: second}]}\n",
            "split: train: expected a probability",
        ),
        ("split: {train: [{volume: first, probability: 0}]}\n", "split: train: .* one of them above 0"),
        (
            "split: {train: [{volume: first, probability: -1}]}\n",
            "probability: Input should be greater than or equal to 0",
        ),
        ("split: {test: [{volume: first, probability: 1}]}\n", "split: test: a probability is one of training"),
        ("default_volumes: [third]\n", "default_volumes: third is none"),
        ("prefix: ../../etc\n", "prefix: expected folders below the bucket"),
        ("bucket: b\nfolder: here\n", "only one of the four"),
        (f"bucket: b\nsuffix: .hdf\n{FILES}", "only one of the four"),
        (f"suffix: .hdf\n{FILES}", "files: has no address of second"),
        (FILES.replace("first", "third"), "files: third is none"),
        (FILES + "  second: {url: 'https://a/b', sha256: " + "a" * 64 + "}\n", "expected a suffix as .hdf"),
        ("files: {first: {url: 'ftp://a/b', sha256: " + "a" * 64 + "}}\n", "files.first.url: String should match"),
        ("files: {first: {url: 'https://a/b', sha256: a}}\n", "files.first.sha256"),
        ("suffix: .n5\n", "suffix: expected one of .zarr, .hdf, .h5, .hdf5"),
        ("synthesis: {third: {}}\n", "synthesis: third is none"),
        ("synthesis: {first: {sed: 1}}\n", "synthesis.first.sed: Extra inputs are not permitted"),
        ("synthesis: {first: {seed: -1}}\n", "synthesis.first.seed: Input should be greater than or equal to 0"),
        ("synthesis: {first: {voxel_size: [8, 8, 8]}}\n", "voxel_size is the data set's own"),
        ("segmentation: {block: 3}\n", "own.yaml:5: segmentation.block: unknown key"),
    ],
)
def test_bad_yaml_names_line_and_key(tmp_path: Path, more: str, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        load_dataset(write(tmp_path, OWN + more), FOLDER)


def test_name_must_be_the_files(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="holds 'own', expected the file's own, 'other'"):
        load_dataset(write(tmp_path, OWN, "other"), FOLDER)


@pytest.mark.parametrize("name", ["../up", "a/b", "", ".zarr", "..", "a\nb"])
def test_volume_names_are_file_names(name: str) -> None:
    with pytest.raises(ValidationError, match="expected a volume's name"):
        Dataset(name="x", voxel_size=(1, 1, 1), volumes=(name,))


def test_two_volumes_of_one_name() -> None:
    with pytest.raises(ValidationError, match="twice"):
        Dataset(name="x", voxel_size=(1, 1, 1), volumes=("a", "a.zarr"))


def test_data_set_told_by_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "funke/hemi/training").mkdir(parents=True)
    assert dataset_of(tmp_path / "funke/hemi/training/x.zarr", FOLDER).name == "hemi"
    monkeypatch.chdir(tmp_path / "funke/hemi/training")
    assert dataset_of(Path("x.zarr"), FOLDER).name == "hemi"
    with pytest.raises(BadInput, match="give it with --dataset"):
        dataset_of(tmp_path / "x.zarr", FOLDER)


def test_shared_folder_of_either_layout(tmp_path: Path) -> None:
    data = load_dataset("fib25", FOLDER)
    with pytest.raises(BadInput, match=r"has no trvol-250-2.zarr; looked at .*/funke/fib25/.* and .*/fib25/training/"):
        data.find_in(tmp_path, "trvol-250-2")
    short = tmp_path / "fib25/training/trvol-250-2.zarr"
    short.mkdir(parents=True)
    assert data.find_in(tmp_path, "trvol-250-2") == short
    full = tmp_path / "funke/fib25/training/trvol-250-2.zarr"
    full.mkdir(parents=True)
    assert data.find_in(tmp_path, "trvol-250-2") == full
