import json
import os
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from emsuite.cli import options
from emsuite.download.endpoint import Endpoint


@click.command()
@options.network
@options.device
@options.workers
@options.block_settings
@options.overrides
def command(**chosen: object) -> None:
    """Print what was chosen."""
    for key, value in chosen.items():
        click.echo(f"{key} {value!r}")


def chosen(*arguments: str) -> dict[str, str]:
    result = CliRunner().invoke(command, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return dict(line.split(" ", 1) for line in result.output.splitlines())


def refused(*arguments: str) -> str:
    result = CliRunner().invoke(command, arguments)
    assert result.exit_code == 2, result.output
    return result.output


def test_defaults() -> None:
    found = chosen("folder")
    assert found["network_dir"] == repr(Path("folder"))
    assert found["device"] == "'auto'"
    assert int(found["workers"]) >= 1
    assert (found["block_size"], found["context"], found["overrides"]) == ("None", "None", "()")


@click.command()
@options.network_and("iterations")
@click.option("--iterations", type=click.IntRange(min=1))
def counted(network_dir: Path, iterations: int | None) -> None:
    """Print what was chosen."""
    click.echo(f"{network_dir.name} {iterations}")


def test_a_number_behind_the_network_is_the_iteration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mtlsd/32").mkdir(parents=True)
    (tmp_path / "mtlsd/network.yaml").touch()
    (tmp_path / "mtlsd/32/network.yaml").touch()
    monkeypatch.chdir(tmp_path / "mtlsd")

    def told(*words: str) -> str:
        result = CliRunner().invoke(counted, words)
        return result.output.splitlines()[-1] if result.exit_code in (0, 2) else repr(result.exception)

    assert told() == "mtlsd None"
    assert told("400001") == told("--iterations", "400001") == told("400001", "--iterations", "400001")
    assert told("400001") == "mtlsd 400001"
    assert told("../mtlsd", "7") == told("../mtlsd", "--iterations", "7") == "mtlsd 7"
    assert told("32") == "32 None", "a network of this name"
    assert told("32", "5") == "32 5"
    assert "expected a number above 0, once" in told("7", "--iterations", "8")
    assert "expected a number above 0, once" in told("0")
    assert "expected the folder of a network, and a number behind it" in told("a", "b")
    monkeypatch.chdir(tmp_path)
    assert "no NETWORK_DIR given" in told("7")


def test_three_numbers() -> None:
    assert chosen("folder", "--block-size", "2048,1024,512")["block_size"] == "(2048, 1024, 512)"
    assert chosen("folder", "--block-size", "294,4.6,46")["block_size"] == "(294, 4.6, 46)"
    for odd in ("1,2", "1,2,3,4", "0,1,1", "-1,2,3", "1,2,x", "nan,2,3", "", "8"):
        assert "expected three lengths in nm" in refused("folder", "--block-size", odd)


def test_overrides_may_be_given_again() -> None:
    assert chosen("folder", "--set", "a=1", "--set", "b.c=[2]")["overrides"] == "('a=1', 'b.c=[2]')"


def test_devices_and_workers_are_checked() -> None:
    assert "tpu" in refused("folder", "--device", "tpu")
    assert "0" in refused("folder", "--workers", "0")


def test_the_network_may_be_left_out_inside_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(command, [])
    assert "this folder has no network.yaml" in str(result.exception)
    (tmp_path / "network.yaml").touch()
    assert chosen()["network_dir"] == repr(tmp_path)


def test_connections() -> None:
    @click.command()
    @options.endpoint
    @options.connections(16)
    def fetching(endpoint: Endpoint, workers: int) -> None:
        click.echo(f"{endpoint.url} {endpoint.ca_bundle} {endpoint.insecure} {workers}")

    assert CliRunner().invoke(fetching, []).output == "None None False 16\n"
    given = ["--endpoint-url", "http://x", "--ca-bundle", "ca.pem", "--workers", "256"]
    assert CliRunner().invoke(fetching, given).output == "http://x ca.pem False 256\n"
    assert CliRunner().invoke(fetching, ["--insecure"]).output == "None None True 16\n"
    assert CliRunner().invoke(fetching, ["--insecure", "--ca-bundle", "ca.pem"]).exit_code == 2
    assert CliRunner().invoke(fetching, ["--workers", "257"]).exit_code == 2


@click.command()
@click.option("--raw", "raw_path", type=options.FILE)
@click.option("--labels", type=options.FILE, multiple=True)
@options.stated_grid("raw_path", "labels")
def gridded(raw_path: Path | None, labels: tuple[Path, ...]) -> None:
    """Print what is stated for the paths."""
    click.echo(os.environ.get("EMSUITE_STATED_GRIDS", "{}"))


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], {}),
        (["--voxel-size", "40,4.6,4.6"], {path: [[40, 4.6, 4.6], None] for path in ("/a", "/b", "/c")}),
        (["--offset", "labels=-8,0,8"], {path: [None, [-8, 0, 8]] for path in ("/b", "/c")}),
        (["--voxel-size", "8,8,8", "--voxel-size", "raw=4,4,4", "--offset", "raw=1,2,3"],
         {"/a": [[4, 4, 4], [1, 2, 3]], "/b": [[8, 8, 8], None], "/c": [[8, 8, 8], None]}),
    ],
)  # fmt: skip
def test_a_grid_is_stated_for_all_volumes_or_for_one(words: list[str], expected: dict[str, object]) -> None:
    paths = ["--raw", "/a", "--labels", "/b", "--labels", "/c"]
    result = CliRunner().invoke(gridded, [*paths, *words], catch_exceptions=False)
    assert json.loads(result.output) == expected
    assert "EMSUITE_STATED_GRIDS" not in os.environ


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--voxel-size", "8,8"], "expected three lengths in nm, as 40,4.6,4.6"),
        (["--voxel-size", "8,8,x"], "expected three lengths in nm"),
        (["--voxel-size", "-8,8,8"], "expected three lengths above 0 nm"),
        (["--offset", "1e300,0,0"], "expected three lengths in nm"),
        (["--raw", "/a", "--offset", "affs=0,0,0"], "--offset affs=: expected raw or labels before ="),
        (["--raw", "/a", "--offset", "labels=0,0,0"], "--offset goes with a volume that is named in the command line"),
        (["--voxel-size", "8,8,8"], "--voxel-size goes with a volume that is named"),
    ],
)
def test_an_odd_grid_is_refused(words: list[str], message: str) -> None:
    result = CliRunner().invoke(gridded, words)
    assert result.exit_code == 2
    assert message in result.output
