import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios

import pytest

from emsuite.common.progress import is_progress, roughly

SCRIPT = """
import time
from emsuite.common import progress as module
module._SECONDS_BETWEEN_LINES = 0.1
for _ in module.progress(range(40), what="work", unit="tile"):
    time.sleep(0.01)
with module.progress(what="fetch", total=12, done=3, unit="step") as bar:
    bar.update(8)
with module.progress(what="bytes", total=5_000_000, unit="B") as bar:
    bar.update(5_000_000)
print("end")
"""


def test_a_log_file_gets_plain_lines() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    assert done.stdout == "end\n"
    lines = done.stderr.splitlines()
    assert all(done.stderr.count(mark) == 0 for mark in ("\r", "\x1b", "█", "#"))
    assert all(lines), "no empty ones"
    assert len(set(lines)) == len(lines)
    work, fetch, read = ([line for line in lines if line.startswith(what)] for what in ("work", "fetch", "bytes"))
    assert work[0].startswith("work:   0% 0/40 [")
    assert work[-1].startswith("work: 100% 40/40 [")
    assert 3 <= len(work) <= 12, "now and then, not at every step"
    assert [line.split("[")[0] for line in fetch] == ["fetch:  25% 3/12 ", "fetch:  92% 11/12 "]
    assert read[-1].startswith("bytes: 100% 5.00M/5.00M [")
    assert all(map(is_progress, lines))


@pytest.mark.parametrize(
    ("line", "is_one"),
    [
        ("fragments:   0% 0/1 [00:00<?, ?block/s]", True),
        ("train: 12% 3/20 [00:10<1:00:12, 1.1it/s, loss=0.3]", True),
        ("thresholds:   2%|▏         | 1/51 [00:00<00:09, 5.2it/s]", True),
        ("batches: 5it [00:00, 3.2it/s]", True),
        ("error: block 3 of 4: 50% of [0:80, 0:80] is missing", False),
        ("ValueError: expected [0:10]", False),
        ("predict: 12 tiles are missing from [0:10, 0:5]", False),
        ("MemoryError", False),
        ("", False),
        ("a: 0% 0/1 [" * 100_000, False),
    ],
)
def test_lines_of_progress_are_known(line: str, is_one: bool) -> None:
    assert is_progress(line) == is_one


def test_a_terminal_gets_a_bar() -> None:
    controller, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    with subprocess.Popen([sys.executable, "-c", SCRIPT], stdout=subprocess.PIPE, stderr=terminal) as process:
        os.close(terminal)
        shown = b""
        while True:
            try:
                piece = os.read(controller, 65536)
            except OSError:  # the other side is closed
                break
            if not piece:
                break
            shown += piece
        assert process.wait(20) == 0
    os.close(controller)
    text = shown.decode()
    assert text.count("\r") > 5, "the line is written over"
    assert "work: 100%|" in text
    assert text.endswith("\n")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.123, "0.12 s"), (98.4, "98 s"), (119, "119 s"), (150, "2 minutes"), (5400, "90 minutes"), (7200, "2 hours"),
     (86400 * 2.6, "3 days"), (86400 * 4000, "4,000 days")],
)  # fmt: skip
def test_durations_in_their_largest_unit(seconds: float, text: str) -> None:
    assert roughly(seconds) == text
