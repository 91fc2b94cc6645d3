"""Stage scripts as the shell sees them: written to a file here, and run as a process."""

import contextlib
import errno
import logging
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import click
import psutil
import pytest

from emsuite.cli.command import stage
from emsuite.common.errors import BadInput, RunFailed, one_line

SCRIPT = '''
import errno, logging, os, sys, time
import click, h5py
import numpy as np
from pathlib import Path
from emsuite.cli.command import stage
from emsuite.common.errors import BadInput, RunFailed
from emsuite.common.files import atomic_path, write_text
from emsuite.common.outputs import output

@stage(example="""
python script.py --case good
python script.py --case other
""")
@click.option("--case", required=True, help="What to do.")
@click.option("--number", type=int, default=3, help="A number.")
@click.option("--out", type=click.Path(path_type=Path))
def main(case, number, out):
    """Do what is asked."""
    log = logging.getLogger("emsuite.something")
    if case == "good":
        log.debug("in detail"), log.info("in short"), logging.getLogger("other").info("of no interest")
    if case == "code":
        return 7
    if case == "bad":
        raise BadInput("a.yaml:3: key: holds\\n  two\\n  lines")
    if case == "failed":
        raise RunFailed("the loss is nan")
    if case == "system":
        raise OSError(number, os.strerror(number), "some/file")
    if case == "no number":
        raise OSError("cannot write data:\\nno room")
    if case == "memory":
        raise MemoryError("cannot have 3 GiB")
    if case == "memory of torch":
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory")
    if case == "memory of a GPU":
        raise type("OutOfMemoryError", (RuntimeError,), {})("CUDA out of memory. Tried to allocate 2.00 GiB")
    if case == "other":
        raise RuntimeError("a bug")
    if case == "bug":
        raise ZeroDivisionError("a bug")
    if case == "sleep":
        print("ready", flush=True)
        time.sleep(60)
    if case == "sleep while a class is made":
        class Slow:
            def __set_name__(self, owner, name):
                print("ready", flush=True)
                time.sleep(60)
        type("Made", (), {"slow": Slow()})
    if case == "fill":
        with output(out, {}):
            out.mkdir()
            write_text(out / "large", "x" * 2_000_000)
    if case in ("fill an array", "fill HDF5", "fill packed HDF5"):
        with output(out, {}) as made:
            out.mkdir()
            if case == "fill HDF5":
                with h5py.File(out / "large", "w") as file:
                    file["a"] = np.ones(2_000_000)
            if case == "fill packed HDF5":
                with h5py.File(out / "large", "w") as file:
                    noise = np.random.default_rng(0).integers(0, 2**60, 2_000_000)
                    file.create_dataset("a", data=noise, chunks=(10_000,), compression="gzip", shuffle=True)
            with atomic_path(out / "large") as part, part.open("wb") as file:
                np.save(file, np.ones(2_000_000))

if __name__ == "__main__":
    main()
'''


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("script") / "script.py"
    path.write_text(SCRIPT)
    return path


def run(script: Path, *arguments: object) -> tuple[int, str, str]:
    """Exit code, standard output and standard error."""
    command = [sys.executable, script, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/")
    return done.returncode, done.stdout, done.stderr


def test_a_good_end(script: Path) -> None:
    assert run(script, "--case", "good") == (0, "", "in short\n")
    assert run(script, "--case", "good", "-v") == (0, "", "in detail\nin short\n")
    assert run(script, "--case", "code")[0] == 7


@pytest.mark.parametrize("option", ["--help", "-h"])
def test_help_ends_with_the_example(script: Path, option: str) -> None:
    code, out, _ = run(script, option)
    assert code == 0
    assert "Do what is asked." in out
    assert "[default: 3]" in out
    assert out.rstrip().endswith("Example:\n    python script.py --case good\n    python script.py --case other")


@pytest.mark.parametrize(
    ("arguments", "code", "line"),
    [
        (("--case", "bad"), 2, "a.yaml:3: key: holds two lines"),
        (("--case", "failed"), 1, "the loss is nan"),
        (("--case", "no number"), 1, "file system: cannot write data: no room"),
        (("--case", "memory"), 1, "out of memory: cannot have 3 GiB"),
        (("--case", "memory of torch"), 1, "out of memory: [enforce fail"),
        (("--case", "memory of a GPU"), 1, "out of memory: CUDA out of memory. Tried"),
        ((), 2, "Missing option '--case'. (--help shows what is expected)"),
        (("--case", "good", "--number", "x"), 2, "Invalid value for '--number': 'x' is not a valid integer. (--help"),
        (("--case", "good", "--number", str(2**70)), 2, "Invalid value for '--number': expected a usual number"),
        (("--case", "good", "--number", str(-(2**70))), 2, "Invalid value for '--number': expected a usual number"),
        (("--case", "good", "--number", "1" * 5000), 2, "Invalid value for '--number'"),
        (("--case", " "), 2, "an empty word in the command line"),
        (("--case", "good", "--out", ""), 2, "an empty word in the command line"),
        (("--nothing",), 2, "No such option"),
        (("more", "--case", "good"), 2, "Got unexpected extra argument (more) (--help shows what is expected)"),
    ],
)
def test_bad_ends_are_one_line_and_a_code(script: Path, arguments: tuple[str, ...], code: int, line: str) -> None:
    found, out, error = run(script, *arguments)
    assert (found, out) == (code, "")
    assert error.startswith(f"error: {line}")
    assert error.count("\n") == 1
    assert "Traceback" not in error


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.ENOENT])
def test_what_the_file_system_says_is_one_line(script: Path, number: int) -> None:
    assert run(script, "--case", "system", "--number", number) == (1, "", f"error: some/file: {os.strerror(number)}\n")


@pytest.mark.parametrize("number", [errno.EISDIR, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG])
def test_a_path_that_leads_nowhere_is_bad_input(script: Path, number: int) -> None:
    assert run(script, "--case", "system", "--number", number) == (2, "", f"error: some/file: {os.strerror(number)}\n")


@pytest.mark.parametrize("case", ["bug", "other"])
def test_a_bug_is_not_hidden(script: Path, case: str) -> None:
    code, _, error = run(script, "--case", case)
    assert code == 1
    assert "Traceback" in error


@pytest.mark.parametrize("case", ["sleep", "sleep while a class is made"])
def test_an_interrupt_is_one_line(script: Path, case: str) -> None:
    command = [sys.executable, script, "--case", case]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=120)
    assert (process.returncode, error.lstrip("\n")) == (130, "error: interrupted\n")


@pytest.mark.parametrize("case", ["fill", "fill HDF5", "fill packed HDF5", "fill an array"])
def test_a_full_disk_is_one_line_and_leaves_nothing_that_looks_whole(script: Path, tmp_path: Path, case: str) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    try:
        mounted = os.geteuid() == 0 and subprocess.run(mount, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("missing: the right to mount a small disk")
    try:
        code, _, error = run(script, "--case", case, "--out", disk / "made")
        assert code == 1
        assert re.fullmatch(rf"error: {disk}/made[^ ]*: No space left on device\n", error), error
        assert not (disk / "made.manifest.json").exists()
        assert "HDF5" in case or not (disk / "made" / "large").exists()
        assert (disk / "made.unfinished.json").exists()
    finally:
        subprocess.run(["umount", str(disk)], check=True)


TALKS = """
import logging, sys, warnings
import click
from emsuite.cli.command import stage
from emsuite.common.errors import RunFailed
from emsuite.common.progress import progress

@stage(example="x")
@click.argument("name")
def main(name):
    click.echo(f"{name}: out\\nsecond line")
    print("printed", name)
    logging.getLogger("emsuite.x").info("%s: log", name)
    logging.getLogger("botocore").warning("%s: of a library", name)
    try:
        raise ValueError(name)
    except ValueError:
        logging.getLogger("emsuite.x").exception("failed")
    for _ in progress(range(2), what=name):
        pass
    raise RunFailed(f"{name}: broken")

main()
"""
HOSTILE = "\x1b]0;owned\x07\x1b[2J\u202ea\rb\nerror: c http://me:hunter2@host"


@pytest.mark.parametrize("name", [HOSTILE, "\udc80\x9b"])
def test_names_cannot_command_the_terminal(name: str) -> None:
    """Neither as results nor in messages, in bars or in tracebacks; and none of them shows a password."""
    done = subprocess.run([sys.executable, "-c", TALKS, name], capture_output=True, check=False)
    assert done.returncode == 1, done.stderr
    for text in (done.stdout.decode(), done.stderr.decode()):
        assert all(line.isprintable() for line in text.split("\n")), text
        assert "hunter2" not in text
    assert done.stdout.decode().count("second line") == 1, "line breaks of a script's own stay"
    lines = done.stderr.decode().splitlines()
    assert [line for line in lines if line.startswith("error: ")] == lines[-1:], "no name begins a line"
    assert "Traceback" in done.stderr.decode()


def test_a_traceback_cannot_command_the_terminal() -> None:
    talks = TALKS.replace("raise RunFailed", "raise KeyError")
    done = subprocess.run([sys.executable, "-c", talks, HOSTILE], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.count("Traceback") == 2
    assert all(line.isprintable() for line in done.stderr.split("\n"))
    assert "hunter2" not in done.stderr


def test_a_bad_option_cannot_command_the_terminal() -> None:
    for words in (["\x1b[2J", "\x1b[31m"], ["--\x1b[2J"]):
        done = subprocess.run([sys.executable, "-c", TALKS, *words], capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert done.stderr.rstrip("\n").isprintable()


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    """The library's logger; as it was, afterwards."""
    logger = logging.getLogger("emsuite")
    before = logger.level, logger.propagate, logger.handlers
    yield logger
    logger.level, logger.propagate, logger.handlers = before


def test_a_command_can_be_called_as_a_function(logger: logging.Logger) -> None:
    @stage(example="python x.py")
    @click.argument("word")
    def main(word: str) -> None:
        """Say a word."""
        click.echo(word)

    with pytest.raises(SystemExit) as end:
        main(["hello"])
    assert end.value.code == 0
    assert len(logger.handlers) == 1


@pytest.mark.parametrize("kind", [BadInput, RunFailed])
def test_errors_are_one_line_wherever_they_are_shown(kind: type[Exception]) -> None:
    assert str(kind("a:\n   b\r\n\tc  d")) == "a: b c  d"
    assert one_line("") == ""


WORKFLOW = """
import os, subprocess, sys
from emsuite.common.process import ends_with_this_process
if sys.argv[1] == "as a workflow":
    os.environ.update(ends_with_this_process())
step = subprocess.Popen(["bash", "-c", "set -o pipefail; python step.py 2>&1 | tee -i step.log"])
print("ready", flush=True)
step.wait()
"""
STEP = """
import os, signal, time
from pathlib import Path
from emsuite.cli.command import stage

@stage(example="python step.py")
def main():
    Path("pid").write_text(str(os.getpid()))
    time.sleep(60)

main()
"""


@pytest.mark.parametrize("kind", ["as a workflow", "by a user"])
def test_a_step_ends_with_its_workflow(tmp_path: Path, kind: str) -> None:
    """A kill of the workflow alone; what a user starts in the background goes on."""
    (tmp_path / "step.py").write_text(STEP)
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    workflow = subprocess.Popen([sys.executable, "-c", WORKFLOW, kind], cwd=tmp_path, env=environment,
                                stdout=subprocess.DEVNULL)  # fmt: skip
    while not (pid := tmp_path / "pid").exists() or not pid.read_text():
        time.sleep(0.05)
    step = psutil.Process(int(pid.read_text()))
    workflow.kill()
    workflow.wait()
    try:
        step.wait(3 if kind == "by a user" else 20)
    except psutil.TimeoutExpired:
        assert kind == "by a user"
    else:
        assert kind == "as a workflow"
        assert f"the workflow (process {workflow.pid}) has ended" in (tmp_path / "step.log").read_text()
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):
            step.kill()
