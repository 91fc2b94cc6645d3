import os
import signal
import threading
import time
from pathlib import Path

import psutil
import pytest

from emsuite.blockwise.fork_server import start_fork_server
from emsuite.blockwise.worker import end_with


class Context:
    """Stands for daisy's."""

    def __init__(self, text):
        self.text = text

    def to_env(self):
        return self.text


@pytest.fixture(autouse=True)
def nothing_left_behind():
    before = psutil.Process().children(recursive=True)
    yield
    assert set(psutil.Process().children(recursive=True)) <= set(before)


def test_a_worker_finds_its_context_and_what_was_prepared(tmp_path):
    prepared = []

    def be_worker(_connections):
        Path(tmp_path / os.environ["DAISY_CONTEXT"]).write_text(f"{prepared}")

    with start_fork_server(be_worker, lambda: prepared.append("loaded")) as launch:
        launch(context=Context("first"))
        launch(context=Context("second"))
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == dict.fromkeys(
        ("first", "second"), "['loaded']"
    )
    assert prepared == [], "done in another process"
    assert os.environ.get("DAISY_CONTEXT") not in ("first", "second")


def test_a_launcher_ends_as_its_worker(tmp_path, capfd):
    def be_worker(_connections):
        if os.environ["DAISY_CONTEXT"] == "raise":
            raise ValueError("no good")
        os.kill(os.getpid(), signal.SIGKILL)

    with start_fork_server(be_worker) as launch:
        with pytest.raises(SystemExit, match="worker exited with code 1"):
            launch(context=Context("raise"))
        with pytest.raises(SystemExit, match="worker exited with code -9"):
            launch(context=Context("die"))
    assert "ValueError: no good" in capfd.readouterr().err


@pytest.mark.parametrize("closing", ["fork server", "monitor"])
def test_workers_end_with_the_fork_server_and_live_on_without_their_monitor(tmp_path, closing):
    def be_worker(connections):
        end_with(*connections)
        (tmp_path / "begun").write_text(str(os.getpid()))
        time.sleep(1 if closing == "monitor" else 60)
        (tmp_path / "done").touch()

    ends = []

    def launched():
        try:
            launch(context=Context("x"))
        except SystemExit as end:
            ends.append(str(end))

    with start_fork_server(be_worker) as launch:
        thread = threading.Thread(target=launched)
        thread.start()
        while not (tmp_path / "begun").exists() or not (tmp_path / "begun").read_text():
            time.sleep(0.02)
        worker = psutil.Process(int((tmp_path / "begun").read_text()))
        if closing == "monitor":
            worker.parent().kill()
            thread.join(60)
    thread.join(60)
    assert not thread.is_alive()
    assert ends == ["worker vanished"] or ends == ["worker exited with code 1"]
    assert (tmp_path / "done").exists() == (closing == "monitor")
    psutil.wait_procs([worker], timeout=60)
    assert not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE


def test_asking_a_fork_server_that_is_gone_fails():
    with start_fork_server(lambda _: None) as launch:
        pass
    with pytest.raises(OSError):
        launch(context=Context("x"))
    assert not Path(launch.address).parent.exists()
