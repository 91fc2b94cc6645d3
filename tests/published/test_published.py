import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from builders import files_in, recorded
from emsuite.common.errors import BadInput
from emsuite.common.outputs import manifest_path
from emsuite.common.provenance import reproducible
from emsuite.config.network import load_network
from emsuite.download.object_store import S3Store, StoredObject
from emsuite.published.published import (
    convert,
    fetch_published,
    key_prefix,
    newest_checkpoint,
    published_networks,
    with_frozen_networks,
)
from emsuite.published.tensorflow_bundle import Bundle
from emsuite.training import checkpoint as checkpoints
from emsuite.training.trained_network import load_trained

pytestmark = pytest.mark.usefixtures("short_delays")


def copied(prefix: Path, folder: Path, name: str | None = None) -> Path:
    """A copy of a bundle; its path without endings."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in prefix.parent.glob(f"{prefix.name}.*"):
        shutil.copy(file, folder / file.name.replace(prefix.name, name or prefix.name))
    return folder / (name or prefix.name)


def listed(*names: str) -> list[StoredObject]:
    return [StoredObject(f"some/where/{name}", name, 1, "") for name in names]


# ---- which checkpoint


def checkpoint_files(iteration: int, shards: int = 1) -> list[str]:
    name = f"train_net_checkpoint_{iteration}"
    return [f"{name}.index", *(f"{name}.data-{i:05d}-of-{shards:05d}" for i in range(shards))]


def test_the_newest_checkpoint_by_number_not_by_name() -> None:
    files = listed("checkpoint", "train_net.meta", *checkpoint_files(90_000), *checkpoint_files(400_000))
    assert [stored.name for stored in newest_checkpoint(files)] == checkpoint_files(400_000)


def test_incomplete_checkpoints_do_not_count() -> None:
    without_index = checkpoint_files(500_000)[1:]
    without_shard = checkpoint_files(450_000, shards=3)[:-1]
    whole = checkpoint_files(400_000, shards=2)
    files = listed("train_net_checkpoint_600000.meta", *without_index, *without_shard, *whole)
    assert sorted(stored.name for stored in newest_checkpoint(files)) == sorted(whole)
    assert newest_checkpoint(listed("checkpoint", *without_index)) == []


def test_files_in_subfolders_do_not_count() -> None:
    assert newest_checkpoint(listed(*(f"old/{name}" for name in checkpoint_files(400_000)))) == []


def test_the_frozen_network_comes_first(thin_networks: Path) -> None:
    folder = thin_networks / "zebrafinch"
    lsd = ("lsd", 400_000)
    asked = ["aclsd", "mtlsd", "acrlsd", "lsd"]
    expected = [("mtlsd", None), ("lsd", None), lsd, ("aclsd", None), ("acrlsd", None)]
    assert with_frozen_networks(asked, folder) == expected


def test_the_checkpoint_that_an_autocontext_network_names_goes_before_a_newer_one() -> None:
    files = listed(*checkpoint_files(300_000), *checkpoint_files(400_000))
    assert [stored.name for stored in newest_checkpoint(files, 300_000)] == checkpoint_files(300_000)
    assert [stored.name for stored in newest_checkpoint(files, 200_000)] == checkpoint_files(400_000)


def test_another_iteration_of_the_frozen_network_is_refused_in_one_line(thin_networks: Path) -> None:
    lsd, aclsd = thin_networks / "zebrafinch/lsd", thin_networks / "zebrafinch/aclsd"
    convert(recorded("zebrafinch", "lsd"), lsd)
    file = aclsd / "network.yaml"
    file.write_text(file.read_text().replace("iteration: 400000", "iteration: 300000"))
    message = (
        "lsd: no checkpoint of iteration 300000, which autocontext.iteration of 'aclsd' names; it has 400000: train"
    )
    with pytest.raises(BadInput, match=message):
        convert(recorded("zebrafinch", "aclsd"), aclsd)


# ---- fetched


def bucket(s3: Any, name: str, networks: list[str], others: int = 0) -> S3Store:
    objects = {f"{key_prefix('zebrafinch', 'mtlsd')}/old/{i}": b"" for i in range(others)}
    for network in networks:
        prefix = recorded("zebrafinch", network)
        for file in prefix.parent.glob(f"{prefix.name}.*"):
            objects[f"{key_prefix('zebrafinch', network)}/{file.name}"] = file.read_bytes()
        objects[f"{key_prefix('zebrafinch', network)}/checkpoint"] = b'model_checkpoint_path: "train_net_checkpoint_9"'
    s3.public_bucket(name, objects)
    return S3Store(name, s3.url)


def test_the_newest_checkpoint_is_fetched_whatever_the_state_file_says(s3: Any, tmp_path: Path) -> None:
    store = bucket(s3, "published-newest", ["mtlsd"], others=1003)
    s3.client().put_object(Bucket="published-newest", Key=f"{key_prefix('zebrafinch', 'mtlsd')}/"
                           "train_net_checkpoint_500000.index", Body=b"alone")  # fmt: skip
    s3.faults(slowdown=0.2, error=0.1, truncate=0.2)
    prefix, source = fetch_published(store, "zebrafinch", "mtlsd", tmp_path)
    assert prefix == tmp_path / "funke/zebrafinch/training/checkpoints/mtlsd/train_net_checkpoint_400000"
    assert sorted(path.name for path in prefix.parent.iterdir()) == sorted(checkpoint_files(400_000))
    assert Bundle(prefix).read("setup02/affs_0/bias").shape == (3,)
    assert source["source"] == "s3://published-newest/funke/zebrafinch/training/checkpoints/mtlsd"
    sizes = {item["key"].rpartition("/")[2]: item["size"] for item in source["objects"]}
    assert sizes == {path.name: path.stat().st_size for path in prefix.parent.iterdir()}
    assert all(len(item["etag"]) == 32 for item in source["objects"])
    s3.faults()
    assert fetch_published(store, "zebrafinch", "mtlsd", tmp_path)[0] == prefix
    assert s3.counts() == {"GET": 2}  # two pages of the listing


def test_networks_with_a_checkpoint_in_the_bucket(s3: Any, thin_networks: Path, tmp_path: Path) -> None:
    store = bucket(s3, "published-all", ["mtlsd", "aclsd"])
    folder = thin_networks / "zebrafinch"
    assert published_networks(store, "zebrafinch", folder) == ["aclsd", "mtlsd"]
    shutil.rmtree(folder / "aclsd")
    assert published_networks(store, "zebrafinch", folder) == ["mtlsd"]
    shutil.rmtree(folder / "mtlsd")
    with pytest.raises(
        BadInput, match=r"training/checkpoints: has no complete checkpoint of a network in .*zebrafinch"
    ):
        published_networks(store, "zebrafinch", folder)


def test_a_bucket_without_a_complete_checkpoint_is_refused(s3: Any, tmp_path: Path) -> None:
    s3.public_bucket("published-none", {f"{key_prefix('zebrafinch', 'mtlsd')}/checkpoint": b""})
    store = S3Store("published-none", s3.url)
    with pytest.raises(BadInput, match="checkpoints/mtlsd: has no complete train_net_checkpoint_<iteration>"):
        fetch_published(store, "zebrafinch", "mtlsd", tmp_path / "data")
    with pytest.raises(BadInput, match="checkpoints/small: holds no objects"):
        fetch_published(store, "zebrafinch", "small", tmp_path / "data")
    assert not (tmp_path / "data").exists()


# ---- converted


def test_a_checkpoint_with_its_provenance(thin_networks: Path) -> None:
    folder, prefix = thin_networks / "zebrafinch/mtlsd", recorded("zebrafinch", "mtlsd")
    path = convert(prefix, folder, optimizer=False, source={"source": "s3://there", "objects": []})
    assert path == folder / "checkpoints/checkpoint_400000.pt"
    saved = checkpoints.load(folder, load_network(folder))
    assert (saved.iteration, saved.optimizer, saved.frozen_digest) == (400_000, None, None)
    manifest = json.loads(manifest_path(path).read_text())
    assert manifest["settings"]["converted"]["source"] == "s3://there"
    assert manifest["settings"]["converted"]["prefix"] == "train_net_checkpoint_400000"
    assert manifest["settings"]["converted"]["index"].startswith("sha256:")
    assert reproducible(manifest) == saved.provenance
    assert manifest["iteration"] == 400_000


def test_a_second_conversion_does_nothing_and_one_with_the_optimizer_replaces_it(thin_networks: Path) -> None:
    folder, prefix = thin_networks / "zebrafinch/mtlsd", recorded("zebrafinch", "mtlsd")
    path = convert(prefix, folder, optimizer=False)
    before = path.stat().st_mtime_ns
    assert convert(prefix, folder, optimizer=False).stat().st_mtime_ns == before
    convert(prefix, folder)
    assert checkpoints.load(folder, load_network(folder)).optimizer is not None
    manifest_path(path).unlink()  # as after a kill between the checkpoint and its manifest
    convert(prefix, folder)
    assert manifest_path(path).exists()


def test_autocontext_remembers_the_frozen_weights(thin_networks: Path) -> None:
    lsd, aclsd = thin_networks / "zebrafinch/lsd", thin_networks / "zebrafinch/aclsd"
    with pytest.raises(BadInput, match=r"zebrafinch/lsd: no checkpoint of iteration 400000; train it, or fetch its"):
        convert(recorded("zebrafinch", "aclsd"), aclsd)
    assert not (aclsd / "checkpoints").exists()
    convert(recorded("zebrafinch", "lsd"), lsd)
    convert(recorded("zebrafinch", "aclsd"), aclsd)
    _, saved = load_trained(aclsd, load_network(aclsd))
    assert saved.iteration == 163_000
    assert saved.frozen_digest == checkpoints.digest(checkpoints.load(lsd, load_network(lsd)).weights)


def test_the_iteration_is_in_the_name_or_counted(thin_networks: Path, tmp_path: Path) -> None:
    folder, prefix = thin_networks / "zebrafinch/mtlsd", recorded("zebrafinch", "mtlsd")
    assert convert(copied(prefix, tmp_path / "a", "mine_7"), folder).name == "checkpoint_7.pt"
    assert convert(copied(prefix, tmp_path / "a", "mine"), folder).name == "checkpoint_400000.pt"


def test_a_checkpoint_trained_here_is_not_replaced(thin_networks: Path) -> None:
    folder, prefix = thin_networks / "zebrafinch/mtlsd", recorded("zebrafinch", "mtlsd")
    convert(prefix, folder)
    own = checkpoints.load(folder, load_network(folder))
    own.provenance = {"settings": {"training": "weeks of work"}}
    path = checkpoints.save(folder, own)
    before = files_in(folder)
    with pytest.raises(BadInput, match="exists already, and was trained here"):
        convert(prefix, folder)
    assert files_in(folder) == before
    path.write_bytes(b"something else")
    with pytest.raises(BadInput, match="not a whole checkpoint of this suite"):
        convert(prefix, folder)


def damaged(folder: Path, how: str) -> Path:
    prefix = copied(recorded("zebrafinch", "mtlsd"), folder)
    index, data = prefix.with_suffix(".index"), next(folder.glob("*.data*"))
    if how == "a changed byte":
        content = bytearray(data.read_bytes())
        content[Bundle(prefix).variables["setup02/unet_layer_3_left_1/kernel"].offset] ^= 1
        data.write_bytes(content)
    elif how == "data cut off":
        data.write_bytes(data.read_bytes()[:-40])
    elif how == "index cut off":
        index.write_bytes(index.read_bytes()[:-100])
    elif how == "no data":
        data.unlink()
    elif how == "foreign":
        index.write_bytes(b"PK\x03\x04" + bytes(200))
    return prefix


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("a changed byte", "variable 'setup02/unet_layer_3_left_1/kernel' is damaged: its checksum"),
        ("data cut off", "train_net_checkpoint_400000.data-00000-of-00001: cut off"),
        ("index cut off", "train_net_checkpoint_400000.index: not an index of a TensorFlow checkpoint, or cut off"),
        ("no data", "data-00000-of-00001: no such file; the checkpoint's index says it has 1 of them"),
        ("foreign", "train_net_checkpoint_400000.index: not an index of a TensorFlow checkpoint"),
    ],
)
def test_bad_bundles_leave_the_folder_as_it_was(thin_networks: Path, tmp_path: Path, how: str, message: str) -> None:
    folder = thin_networks / "zebrafinch/mtlsd"
    prefix = damaged(tmp_path / "bad", how)
    before = files_in(folder)
    with pytest.raises(BadInput, match=message):
        convert(prefix, folder)
    assert files_in(folder) == before
    assert not (folder / "checkpoints").exists()
