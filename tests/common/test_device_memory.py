"""Free memory, of the machine and within a container's limit."""

from pathlib import Path

import pytest

from emsuite.common import device as memory


def test_memory_is_free_and_less_than_there_is() -> None:
    total = int(Path("/proc/meminfo").read_text().split()[1]) * 1024
    assert 0 < memory.free_memory() <= total


def test_a_container_has_what_its_limit_leaves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limit, used = tmp_path / "max", tmp_path / "current"
    monkeypatch.setattr(memory, "_LIMITS", ((str(tmp_path / "none"), str(used)), (str(limit), str(used))))
    read, total = memory._read, "MemAvailable:    8000000 kB\n"  # of the machine, where others work as well
    monkeypatch.setattr(memory, "_read", lambda path: total if path == "/proc/meminfo" else read(path))
    used.write_text("1000000\n")
    limit.write_text("max\n")
    assert memory.free_memory() == 8_000_000 * 1024
    limit.write_text("1500000\n")
    assert memory.free_memory() == 500000
    limit.write_text("900000\n")
    assert memory.free_memory() == 0
