"""Parts of volumes: every way to name one means the same, whatever characters the path holds."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import Field

from emsuite.common.errors import BadInput
from emsuite.common.settings import Settings, validate
from emsuite.config.parts import Parts, VolumePart, split_part

ODD = ["a@b.zarr", "user@host:/v.zarr", "a,b.zarr", "a=b.zarr", "my own/it's.zarr", "-x.zarr", "größe/体.zarr",
       "a::b.zarr", "s3:bucket/v.zarr", "C:/v.zarr", "@.zarr", "1:2,3:4.zarr", "a@0:8.zarr"]  # fmt: skip
REGION = "0:240,:,80:"


class Holder(Settings):
    train: Parts = Field(min_length=1)


def parts(given: Any) -> list[tuple[str, str | None]]:
    return [(str(part.volume), part.roi) for part in validate(Holder, {"train": given}, "config").train]


@pytest.mark.parametrize("path", ODD)
def test_any_path_stays_whole(path: str) -> None:
    for given in (path, [path], {"volume": path}, [{"volume": path}], [{"volume": path, "roi": None}]):
        assert parts(given) == [(path, None)]
    for given in (f"{path}@{REGION}", {"volume": path, "roi": REGION}):
        assert parts(given) == [(path, REGION)]
    for part in (VolumePart(volume=Path(path)), VolumePart(volume=Path(path), roi=REGION)):
        assert VolumePart.model_validate(part.argument).volume == part.volume
        assert (VolumePart.model_validate(part.argument).roi or ":,:,:") == (part.roi or ":,:,:")


def test_a_path_that_ends_like_a_region_needs_the_mapping() -> None:
    part = VolumePart(volume=Path("v@0:8,:,:"))
    assert part.argument == "v@0:8,:,:@:,:,:"
    assert VolumePart.model_validate(part.argument).volume == part.volume
    assert split_part("v@0:8,:,:") == ("v", "0:8,:,:")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[a.zarr@0:240,0:512,0:512]", [("a.zarr", "0:240,0:512,0:512")]),
        ("[a.zarr@0:240,0:512,0:512, b.zarr]", [("a.zarr", "0:240,0:512,0:512"), ("b.zarr", None)]),
        ("[a.zarr@100:,200:,300:]", [("a.zarr", "100:,200:,300:")]),
        ("- a.zarr@0:240,:,:", [("a.zarr", "0:240,:,:")]),
        ("- a.zarr@:,:,0:80\n- b@c.zarr", [("a.zarr", ":,:,0:80"), ("b@c.zarr", None)]),
        ("a.zarr@0:240,:,:", [("a.zarr", "0:240,:,:")]),
        ("- volume: a.zarr\n  roi: :,:,0:80", [("a.zarr", ":,:,0:80")]),
        ("[{volume: a.zarr, roi: [[0, 240], null, [null, 80]]}]", [("a.zarr", "0:240,:,:80")]),
        ("[{volume: a.zarr, roi: [[0, 240], [], []]}]", [("a.zarr", "0:240,:,:")]),
    ],
)
def test_what_yaml_cuts_is_joined(text: str, expected: list) -> None:
    for loader in (yaml.SafeLoader, yaml.BaseLoader):  # config.yaml, --config
        try:
            loaded = yaml.load(text, loader)
        except yaml.YAMLError:
            loaded = text
        assert parts(loaded) == expected


def test_brackets_that_are_no_yaml_are_read_all_the_same() -> None:
    """As --config 'train=[a.zarr@0:240,:,:, b.zarr]' gives them."""
    text = "[a.zarr@0:240,:,:, b.zarr]"
    with pytest.raises(yaml.YAMLError):
        yaml.safe_load(text)
    assert parts(text) == [("a.zarr", "0:240,:,:"), ("b.zarr", None)]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("a.zarr@0:8", "'0:8' behind the last @ is no region, expected three ranges in nm"),
        ("a.zarr@", "'' behind the last @ is no region"),
        ({"volume": "a.zarr", "roi": "0:8"}, "roi: expected three ranges in nm, as 0:1040,:,:; it holds '0:8'"),
        ({"volume": "a.zarr", "roi": [[0, 8]]}, "roi: expected three ranges"),
        ({"volume": "a.zarr", "region": ":,:,:"}, "region: unknown key"),
        (["a.zarr@10:20", 620, 620], "yaml reads a range behind 'a.zarr@10:20' as the number 620: put the part in"),
        ("a\nb.zarr", "without line breaks"),
        (" ", "expected a path"),
        ([], "at least 1 item"),
        (5, "train"),
        ([5], "train"),
    ],
)
def test_other_values_are_named(given: Any, message: str) -> None:
    with pytest.raises(BadInput) as caught:
        parts(given)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_parts_of_one_volume_have_different_names() -> None:
    regions = (None, "0:8,:,:", ":,0:8,:", ":,:,0:8", "0:8,0:8,:", "8:,:,:")
    assert len({VolumePart(volume=Path("v.zarr"), roi=roi).name for roi in regions}) == 6
