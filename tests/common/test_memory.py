"""Free memory, of the machine and within a container's limit."""

from pathlib import Path

import pytest

from emsuite.common import memory


def test_memory_is_free_and_less_than_there_is() -> None:
    total = int(Path("/proc/meminfo").read_text().split()[1]) * 1024
    assert 0 < memory.free_memory() <= total


def test_a_container_has_what_its_limit_leaves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limit, used = tmp_path / "max", tmp_path / "current"
    monkeypatch.setattr(memory, "_LIMITS", ((str(tmp_path / "none"), str(used)), (str(limit), str(used))))
    machine = memory.free_memory()
    used.write_text("1000000\n")
    limit.write_text("max\n")
    assert memory.free_memory() == pytest.approx(machine, rel=0.2)
    limit.write_text("1500000\n")
    assert memory.free_memory() == 500000
    limit.write_text("900000\n")
    assert memory.free_memory() == 0
