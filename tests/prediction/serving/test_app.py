"""A served network: the same bytes as a prediction on disk; what it refuses, and how it tells."""

import contextlib
import http.client
import io
import json
import re
import select
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
import uvicorn

import builders
from emsuite.common.geometry import Roi
from emsuite.common.outputs import output
from emsuite.config.network import build_network, load_network
from emsuite.data.raw import Reads
from emsuite.io.volume import open_volume
from emsuite.prediction.predict import predict_volume
from emsuite.prediction.predictor import make_predictor
from emsuite.prediction.serving import app as app_module
from emsuite.prediction.serving import connections
from emsuite.prediction.serving.app import Limits, make_app
from emsuite.prediction.serving.model import Model
from emsuite.prediction.serving.server import configured, listen, open_volumes

CPU = torch.device("cpu")
TOKEN = "a word of nobody's".replace(" ", "-")
RAW = np.random.default_rng(0).integers(0, 256, (30, 34, 38), np.uint8)


NPY_1 = b"\x93NUMPY\x01\x00"
NO_HEADERS = [
    b"(" * 2000,
    b"{" * 2000,
    b"-" * 2000 + b"1",
    b"{'descr':'|u1','fortran_order':False,'shape':(2,2,2)",
    b"\xff" * 20,
    b"{'descr':'|u1','fortran_order':False,'shape':(True,True,8)}",
    b"{[]:1}",
    b"{'a':1,1:2}",
]


class Server:
    """A server in a thread of this process."""

    def __init__(self, app: Any):
        self.socket = listen("127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}"
        self.server = uvicorn.Server(configured(app))
        self.thread = threading.Thread(target=self.server.run, args=([self.socket],))
        self.thread.start()

    def ask(self, path: str, body: bytes | None = None, **headers: str) -> tuple[int, bytes]:
        """The status and the body of an answer."""
        request = urllib.request.Request(self.url + path, body, {k.replace("_", "-"): v for k, v in headers.items()})
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    def close(self) -> None:
        self.server.should_exit = True
        self.thread.join()


def npy(array: np.ndarray, **more: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array, **more)
    return file.getvalue()


def from_answer(answer: tuple[int, bytes]) -> np.ndarray:
    assert answer[0] == 200, answer
    return np.load(io.BytesIO(answer[1]))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return builders.write_network(tmp_path_factory.mktemp("served") / "n", heads={
        "affs": {"target": "affinities", "neighborhood": [[-1, 0, 0], [0, -1, 0], [0, 0, -1]]},
        "lsds": {"target": "lsds", "sigma": 30, "downsample": 1},
    })  # fmt: skip


@pytest.fixture(scope="module")
def model(folder: Path) -> Model:
    torch.manual_seed(0)
    config = load_network(folder)
    return Model(
        "test/n", build_network(config).eval(), config, CPU, 6, "abc", Reads(config.voxel_size, config.normalization)
    )


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("raw") / "secret.zarr/raw"
    builders.write_array(path, RAW, (10, 10, 10), (100, 0, 50))
    return path


@pytest.fixture(scope="module")
def server(model: Model, raw: Path):
    server = Server(make_app(model, open_volumes(model, [f"cube={raw}"]), Limits(voxels=RAW.size, waiting=1)))
    yield server
    server.close()


def on_disk(model: Model, raw: Path, roi: Roi, out: Path) -> dict[str, np.ndarray]:
    """What `03_predict/predict.py` writes."""
    volume = open_volume(raw)
    predictor = make_predictor(model.network, model.config, CPU, (28, 28, 28), volume, roi)
    with output(out, {}) as prediction:
        predict_volume(predictor, volume, roi, prediction)
    return {head: open_volume(out / head).read() for head in ("affs", "lsds")}


def test_a_block_and_a_region_yield_the_bytes_of_a_prediction(model, raw, server, tmp_path):
    volume = open_volume(raw)
    expected = on_disk(model, raw, volume.roi, tmp_path / "whole.zarr")
    for head in ("affs", "lsds"):
        assert np.array_equal(from_answer(server.ask(f"/predict?head={head}", npy(RAW))), expected[head])
        assert np.array_equal(from_answer(server.ask(f"/volumes/cube?head={head}")), expected[head])
    raw_bytes = server.ask("/predict?shape=30,34,38&dtype=uint8", RAW.tobytes())
    assert np.array_equal(from_answer(raw_bytes), expected["affs"])
    assert np.array_equal(from_answer(server.ask("/predict", npy(np.asfortranarray(RAW)))), expected["affs"])
    part = from_answer(server.ask("/volumes/cube?roi=150:300,40:200,:"))
    assert np.array_equal(part, expected["affs"][:, 5:20, 4:20])


def test_it_tells_what_it_serves(server):
    assert json.loads(server.ask("/health")[1]) == {"status": "ok", "requests": 0}
    network = json.loads(server.ask("/network")[1])
    assert network["heads"] == {"affs": {"channels": 3, "dtype": "uint8"}, "lsds": {"channels": 10, "dtype": "uint8"}}
    assert network["voxel_size_nm"] == [10, 10, 10]
    assert list(json.loads(server.ask("/volumes")[1])) == ["cube"]
    assert "/predict" in json.loads(server.ask("/openapi.json")[1])["paths"]
    assert server.ask("/docs")[0] == 404  # its page would load programs from elsewhere


@pytest.mark.parametrize(
    ("path", "body", "status", "words"),
    [
        ("/volumes/etc", None, 404, "no volume 'etc'; there are: cube"),
        ("/volumes/..%2F..%2Fetc%2Fpasswd", None, 404, ""),
        ("/volumes/cube?roi=0:10,0:10,0:10", None, 400, "cube: covers"),
        ("/volumes/cube?roi=1:2", None, 400, ""),
        ("/volumes/cube?head=loss", None, 404, "no head 'loss'; there are: affs, lsds"),
        ("/predict", b"", 400, "no .npy file"),
        ("/predict", b"\x93NUMPY\x01\x00", 400, "no .npy file"),
        ("/predict", npy(RAW)[:-1], 400, "38,759 bytes, expected 38,760"),
        ("/predict", npy(RAW[0]), 400, "expected three sizes"),
        ("/predict", npy(RAW[:9].astype(complex)), 400, "complex128, expected uint8"),
        ("/predict", npy(np.array([[[{}]]]), allow_pickle=True), 400, "object, expected"),
        ("/predict?shape=99999999,99999999,99999999", b"abc", 400, "expected 999"),
        ("/predict?shape=0,1,1", b"", 400, "at least 1"),
        ("/predict?shape=a", b"", 400, "expected as 64,64,64"),
        ("/predict?shape=" + ",".join(["1" * 4400] * 3), b"a", 400, "expected as 64,64,64"),
        ("/predict?shape=1,1,1&dtype=(1,,)u1", b"a", 400, "expected as 64,64,64"),
        *[
            ("/predict", NPY_1 + len(header).to_bytes(2, "little") + header, 400, "no .npy file")
            for header in NO_HEADERS
        ],
        ("/predict?shape=1,1,1&dtype=os.system", b"a", 400, "expected as 64,64,64"),
        ("/predict", npy(np.full((30, 30, 30), 7.0, np.float32)), 400, "floats from 7"),
        ("/predict", npy(np.zeros((31, 34, 38), np.uint8)), 400, "40,052 voxels, expected at most 38,760"),
    ],
)
def test_what_is_refused(server, path, body, status, words):
    code, text = server.ask(path, body, Content_Type="application/octet-stream")
    assert (code, words in text.decode()) == (status, True), text
    assert b"secret" not in text  # nobody learns where the volume lies
    assert server.ask("/health")[0] == 200


@pytest.mark.parametrize("roi", ["9" * 5000, f"{'9' * 5000}:1,:,:", f"{'x' * 120},:,:", f"0:{'9' * 140},:,:"])
def test_a_long_region_is_told_in_part(server, caplog, roi):
    code, text = server.ask(f"/volumes/cube?roi={roi}")
    assert code == 400
    told = [text.decode(), *caplog.messages]
    assert max((len(run) for line in told for run in re.findall(r"9+|x+", line)), default=0) <= 80


def test_a_body_that_is_too_large_is_refused_before_it_is_sent(server):
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=30)
    connection.putrequest("POST", "/predict")
    connection.putheader("Content-Length", str(RAW.size * 8 + 5000))
    connection.endheaders()
    answer = connection.getresponse()
    assert answer.status == 413
    assert b"post smaller blocks" in answer.read()
    connection.close()


def test_a_client_that_stops_sending_is_given_up(server, monkeypatch):
    monkeypatch.setattr(app_module, "_SLOWEST", 0.3)
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=30)
    connection.putrequest("POST", "/predict")
    connection.putheader("Content-Length", "100")
    connection.endheaders(b"abc")
    assert connection.getresponse().status == 408
    connection.close()


def test_a_block_that_drips_is_given_up(server, monkeypatch):
    """A byte now and then does not keep a place for ever."""
    monkeypatch.setattr(app_module, "_SLOWEST", 0.5)
    connection = begin_block(server, 1000)
    answered = False
    for _ in range(40):
        if answered := bool(select.select([connection.sock], [], [], 0.1)[0]):
            break
        connection.send(b"a")
    assert answered
    assert connection.getresponse().status == 408
    connection.close()


def begin_block(server: Server, length: int, path: str = "/predict") -> http.client.HTTPConnection:
    """Send the head of a request, and one byte of its body."""
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=30)
    connection.putrequest("POST", path)
    connection.putheader("Content-Length", str(length))
    connection.endheaders(b"a")
    return connection


def requests_of(server: Server) -> int:
    return json.loads(server.ask("/health")[1])["requests"]


def until(what: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "never"
        time.sleep(0.02)


def test_a_block_has_a_place_before_it_is_read(server):
    """The server's memory holds as many bodies as may wait, however many clients send."""
    sending = [begin_block(server, 1000) for _ in range(2)]
    until(lambda: requests_of(server) == 2)
    refused = begin_block(server, 1000)
    assert refused.getresponse().status == 503
    for connection in (*sending, refused):
        connection.close()
    until(lambda: requests_of(server) == 0)


@pytest.mark.parametrize(("dtype", "most"), [("uint8", RAW.size), ("float32", 4 * RAW.size), ("V4000", 8 * RAW.size)])
def test_a_block_has_at_most_the_bytes_of_its_type(server, dtype, most):
    path = f"/predict?shape=30,34,38&dtype={dtype}"
    for length, status in ((most + 1, 413), (most, None)):
        connection = begin_block(server, length, path)
        if status:
            assert connection.getresponse().status == status
        connection.close()
    until(lambda: requests_of(server) == 0)


def test_a_client_that_hangs_up_while_it_sends_leaves_no_traceback(server, caplog, capfd):
    for _ in range(3):
        connection = begin_block(server, 1000)
        until(lambda: requests_of(server) == 1)
        connection.close()
        until(lambda: requests_of(server) == 0)
    assert "Traceback" not in caplog.text + "".join(capfd.readouterr())
    assert [record for record in caplog.records if record.exc_info] == []


def test_requests_of_clients_that_have_gone_are_not_computed(model, raw, monkeypatch):
    """They give their places up while they wait."""
    computed, may_go_on = [], threading.Event()

    def predict(*given: Any) -> Any:
        computed.append(given)
        may_go_on.wait(30)
        return {"affs": np.zeros((3, 1, 1, 1), np.uint8)}

    monkeypatch.setattr(Model, "predict", predict)
    server = Server(make_app(model, open_volumes(model, [f"cube={raw}"]), Limits(waiting=4)))
    try:
        with ThreadPoolExecutor(2) as pool:
            first = pool.submit(server.ask, "/predict", npy(RAW))
            until(lambda: len(computed) == 1)
            gone = []
            for path, body in (("/predict", npy(RAW)), ("/volumes/cube", None), ("/predict", npy(RAW))):
                connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=30)
                connection.request("POST" if body else "GET", path, body)
                gone.append(connection)
            last = pool.submit(server.ask, "/volumes/cube")
            until(lambda: requests_of(server) == 5)
            for connection in gone:
                connection.close()
            until(lambda: requests_of(server) == 2)
            may_go_on.set()
            assert [first.result()[0], last.result()[0]] == [200, 200]
        assert len(computed) == 2
    finally:
        may_go_on.set()
        server.close()


def connections_that_send(server: Server, sent: bytes, count: int) -> list[socket.socket]:
    address = server.socket.getsockname()
    made = [socket.create_connection(address, timeout=30) for _ in range(count)]
    for one in made:
        with contextlib.suppress(OSError):  # closed by now
            one.sendall(sent)
    return made


@pytest.mark.parametrize("sent", [b"", b"GET /heal", b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\nGET /he"])
def test_idle_connections_give_way_to_new_ones(server, sent):
    idle = connections_that_send(server, sent, connections.MOST + 40)
    whole, _, _ = sent.rpartition(b"\r\n\r\n")
    try:
        for one in idle if whole else []:  # those that are answered are idle afterwards
            with contextlib.suppress(ConnectionResetError):
                one.recv(10000)
        assert [server.ask("/health")[0] for _ in range(3)] == [200] * 3
    finally:
        for one in idle:
            one.close()


@pytest.mark.parametrize("sent", [b"", b"GET /heal", b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\nGET /he"])
def test_a_connection_without_a_whole_head_is_closed_after_a_while(server, monkeypatch, sent):
    monkeypatch.setattr(connections, "_SLOWEST", 0.3)
    whole, _, begun = sent.rpartition(b"\r\n\r\n")
    (one,) = connections_that_send(server, whole and whole + b"\r\n\r\n", 1)
    if whole:
        assert one.recv(10000).startswith(b"HTTP/1.1 200")
    one.sendall(begun)
    one.settimeout(3)  # kept alive for 5
    with contextlib.suppress(ConnectionResetError):
        while one.recv(1000):
            pass
    one.close()


def test_a_client_that_reads_nothing_is_given_up(model, raw, monkeypatch):
    monkeypatch.setattr(connections, "_SLOWEST", 1.0)
    many = np.random.default_rng(0).integers(0, 256, (64, 2**10, 2**10), np.uint8)
    monkeypatch.setattr(Model, "predict", lambda *given: {"affs": many})
    server = Server(make_app(model, open_volumes(model, [f"cube={raw}"]), Limits(voxels=RAW.size, waiting=1)))
    asks = b"GET /volumes/cube HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    try:
        assert np.array_equal(from_answer(server.ask("/volumes/cube")), many)
        unread = connections_that_send(server, asks, 2)
        until(lambda: requests_of(server) == 2)
        assert server.ask("/volumes/cube")[0] == 503, "an answer on its way has a place"
        until(lambda: requests_of(server) == 0)
        for one in unread:
            one.close()
        (last,) = connections_that_send(server, asks, 1)
        until(lambda: requests_of(server) == 1)
    finally:
        began = time.monotonic()
        server.close()
    assert time.monotonic() - began < 10, "the server ends beside a client that reads nothing"
    last.close()


def test_another_host_name_is_refused(model):
    server = Server(make_app(model, {}, Limits(hosts=("127.0.0.1", "localhost"))))
    try:
        assert server.ask("/health")[0] == 200
        assert server.ask("/health", Host="evil.example")[0] == 400
    finally:
        server.close()


@pytest.mark.parametrize("what", ["the volume", "its folder", "a chunk", "the metadata", "an HDF5 file"])
def test_a_volume_that_was_moved_or_has_lost_files_is_no_zeros(model, tmp_path, caplog, what):
    path = tmp_path / "secret.zarr/raw"
    if what == "an HDF5 file":
        path = tmp_path / "secret.hdf/raw"
        with h5py.File(path.parent, "w") as file:
            array = file.create_dataset("raw", data=RAW)
            array.attrs.update(resolution=(10, 10, 10), offset=(0, 0, 0))
    else:
        builders.write_array(path, RAW, (10, 10, 10))
    chunk = min((file for file in path.rglob("*") if file.is_file() and not file.name.startswith(("z", ".z"))),
                default=path)  # fmt: skip
    document = next((file for file in path.glob("*") if file.name in ("zarr.json", ".zarray")), path)
    gone = {"the volume": path, "a chunk": chunk, "the metadata": document}.get(what, path.parent)
    server = Server(make_app(model, open_volumes(model, [f"cube={path}"]), Limits()))
    try:
        assert server.ask("/volumes/cube")[0] == 200
        gone.rename(tmp_path / "elsewhere")
        for _ in range(2):
            code, text = server.ask("/volumes/cube?roi=0:100,0:100,0:100")
            assert (code, b"volume cube was moved, removed or edited since the server began" in text) == (410, True)
            assert b"secret" not in text
        assert server.ask("/predict", npy(RAW))[0] == 200
    finally:
        server.close()


def test_a_token_is_asked_for(model, raw):
    server = Server(make_app(model, open_volumes(model, [f"cube={raw}"]), Limits(token=TOKEN)))
    try:
        assert server.ask("/health")[0] == 200
        for path, body in (
            ("/network", None),
            ("/openapi.json", None),
            ("/volumes", None),
            ("/volumes/cube", None),
            ("/predict", npy(RAW)),
        ):
            assert server.ask(path, body)[0] == 401
            assert server.ask(path, body, Authorization=f"Bearer {TOKEN}x")[0] == 401
            assert server.ask(path, body, Authorization=f"Bearer {TOKEN}")[0] == 200
    finally:
        server.close()


def test_a_hundred_at_once_are_answered_or_told_to_come_later(server, monkeypatch):
    together = threading.Barrier(100)

    def ask(_: int) -> tuple[int, bytes]:
        together.wait()
        return server.ask("/predict", npy(RAW[:20, :20, :20]))

    with ThreadPoolExecutor(100) as pool:
        answers = list(pool.map(ask, range(100)))
    codes = {code for code, _ in answers}
    assert codes == {200, 503}
    assert len({body for code, body in answers if code == 200}) == 1
    assert json.loads(server.ask("/health")[1])["requests"] == 0
