"""Endpoints other than Amazon's: a small server that knows as little of S3 as some of them do."""

import hashlib
import os
import shutil
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from html import escape
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from builders import files_in
from conftest import need
from emsuite.common.errors import BadInput, RunFailed
from emsuite.download.endpoint import Endpoint, endpoint_address
from emsuite.download.fetch import fetch_prefix
from emsuite.download.object_store import S3Store, StoredObject

pytestmark = pytest.mark.usefixtures("short_delays")

FILES = {"a": b"first", "b/0.0": bytes(range(256)) * 50, "c d+é%": b"third", "z": b"last"}
PAGE = 2


class Server:
    """A bucket `b` with the FILES below `net/`, in pages of two keys.

    listing: `2` as Amazon lists; `1` answers all requests as in version 1; `refused` refuses version 2; `endless`
    ignores where a page begins.  etag: of a body, None for no header.  ranges: whether it knows them.
    """

    def __init__(self, **settings: Any):
        self.prefix, self.listing, self.ranges = "", "2", True
        self.etag: Callable[[bytes], str | None] = lambda body: f'"{hashlib.md5(body).hexdigest()}"'
        self.headers: dict[str, str] = {}
        self.asked: list[str] = []
        vars(self).update(settings)
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                outer.answer(self)

            def do_HEAD(self) -> None:
                outer.answer(self)

            def log_message(self, *_: Any) -> None:
                pass

        self.httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.httpd.server_address[1]
        self.thread = threading.Thread(target=self.httpd.serve_forever, args=(0.01,), daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}{self.prefix}"

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        parts = urlsplit(request.path)
        query = {key: values[0] for key, values in parse_qs(parts.query, keep_blank_values=True).items()}
        self.asked.append(request.path)
        path = unquote(parts.path)
        if path in (f"{self.prefix}/b", f"{self.prefix}/b/"):
            self.send(request, *self.list(query))
        elif path.startswith(f"{self.prefix}/b/net/") and (name := path.split("/net/", 1)[1]) in FILES:
            self.get(request, FILES[name])
        else:
            self.send(request, 404, {}, b"<Error><Code>NoSuchKey</Code></Error>")

    def list(self, query: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
        second = query.get("list-type") == "2" and self.listing != "1"
        if second and self.listing == "refused":
            return 501, {}, b"<Error><Code>NotImplemented</Code><Message>list-type</Message></Error>"
        keys = sorted(f"net/{name}" for name in FILES)
        after = query.get("continuation-token" if second else "marker", "")
        left = [key for key in keys if key > after or self.listing == "endless"]
        page, more = left[:PAGE], len(left) > PAGE
        text = "".join(self.entry(key) for key in page)
        text += f"<IsTruncated>{str(more).lower()}</IsTruncated>"
        if more and second:
            text += f"<NextContinuationToken>{escape(page[-1])}</NextContinuationToken>"
        xml = f'<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>b</Name>{text}'
        return 200, {"Content-Type": "application/xml"}, f"{xml}</ListBucketResult>".encode()

    def entry(self, key: str) -> str:
        body = FILES[key.removeprefix("net/")]
        etag = self.etag(body)
        shown = "" if etag is None else f"<ETag>{escape(etag)}</ETag>"
        return f"<Contents><Key>{escape(key)}</Key>{shown}<Size>{len(body)}</Size></Contents>"

    def get(self, request: BaseHTTPRequestHandler, body: bytes) -> None:
        etag, status, headers = self.etag(body), 200, dict(self.headers)
        wanted = request.headers.get("If-Match")
        if wanted and (wanted != etag or wanted.startswith("W/")):
            self.send(request, 412, {}, b"")
            return
        if etag is not None:
            headers["ETag"] = etag
        if self.ranges and (span := request.headers.get("Range")):
            begin, _, end = span.removeprefix("bytes=").partition("-")
            last = min(int(end), len(body) - 1)
            status, headers["Content-Range"] = 206, f"bytes {begin}-{last}/{len(body)}"
            body = body[int(begin) : last + 1]
        self.send(request, status, headers, body)

    def send(self, request: BaseHTTPRequestHandler, status: int, headers: dict[str, str], body: bytes) -> None:
        request.send_response(status)
        for name, value in headers.items():
            request.send_header(name, value)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        if request.command != "HEAD":
            request.wfile.write(body)


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    """Start servers with settings of `Server`; all of them end with the test."""
    servers: list[Server] = []

    def start(certificate: tuple[Path, Path] | None = None, **settings: Any) -> Server:
        server = Server(**settings)
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*certificate)
            server.httpd.socket = context.wrap_socket(server.httpd.socket, server_side=True)
        server.thread.start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.httpd.shutdown()
        server.httpd.server_close()
        server.thread.join()


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A self-signed certificate for 127.0.0.1, and its key."""
    need(shutil.which("openssl") is not None, "openssl, which makes a certificate")
    folder = tmp_path_factory.mktemp("certificate")
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"]
    made = ["-keyout", folder / "key.pem", "-out", folder / "cert.pem"]
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", *names, *made],
                   check=True, capture_output=True)  # fmt: skip
    return folder / "cert.pem", folder / "key.pem"


def copied(store: S3Store, folder: Path) -> dict[str, bytes]:
    result = fetch_prefix(store, "net", folder, workers=2)
    assert result.objects == len(FILES)
    return files_in(folder)


@pytest.mark.parametrize("listing", ["2", "1", "refused"])
def test_listings_of_both_versions_are_whole(serve: Callable[..., Server], tmp_path: Path, listing: str) -> None:
    server = serve(listing=listing)
    assert copied(S3Store("b", server.url), tmp_path / "net") == FILES
    pages = [path for path in server.asked if path.startswith("/b?")]
    assert len(pages) == -(-len(FILES) // PAGE) + (listing == "refused")


def test_an_endpoint_that_repeats_a_page_is_refused(serve: Callable[..., Server]) -> None:
    for listing in ("endless", "1 endless"):
        server = serve(listing="endless")
        if listing == "1 endless":
            listed = server.list
            server.list = lambda query, listed=listed: listed(query | {"list-type": ""})  # type: ignore[method-assign]
        with pytest.raises(RunFailed, match="b/net: the endpoint lists the same objects again and again"):
            S3Store("b", server.url).list("net")


@pytest.mark.parametrize(
    ("etag", "by_size"),
    [
        (lambda body: None, True),
        (lambda body: "", True),
        (lambda body: f'W/"{len(body):x}"', True),
        (lambda body: f'W/"{hashlib.md5(body).hexdigest()}"', True),
        (lambda body: '"0x8DB2A5C7F1"', True),
        (lambda body: f'"{hashlib.md5(body).hexdigest()}-0"', True),
        (lambda body: hashlib.md5(body).hexdigest(), False),
        (lambda body: f'"{hashlib.md5(body).hexdigest().upper()}"', False),
    ],
)
def test_etags_of_all_kinds(serve: Callable[..., Server], tmp_path: Path, etag: Any, by_size: bool) -> None:
    store = S3Store("b", serve(etag=etag).url)
    result = fetch_prefix(store, "net", tmp_path / "net", workers=2)
    assert files_in(tmp_path / "net") == FILES
    assert result.by_size == by_size * len(FILES)
    again = fetch_prefix(store, "net", tmp_path / "net", workers=2)
    assert again.transferred == 0


@pytest.mark.parametrize(
    "headers",
    [{"x-amz-server-side-encryption": "aws:kms"}, {"x-amz-server-side-encryption-customer-algorithm": "AES256"}],
)
def test_etags_of_encrypted_objects_are_no_checksums(
    serve: Callable[..., Server], tmp_path: Path, headers: dict[str, str]
) -> None:
    wrong = '"00112233445566778899aabbccddeeff"'
    store = S3Store("b", serve(etag=lambda body: wrong, headers=headers).url)
    result = fetch_prefix(store, "net", tmp_path / "net", workers=2)
    assert (files_in(tmp_path / "net"), result.by_size) == (FILES, len(FILES))
    store = S3Store("b", serve(etag=lambda body: wrong, headers={"x-amz-server-side-encryption": "AES256"}).url)
    with pytest.raises(RunFailed, match="what came differs from its checksum"):
        fetch_prefix(store, "net", tmp_path / "wrong", workers=2)


def test_an_object_that_changes_is_noticed_by_its_etag(serve: Callable[..., Server]) -> None:
    server = serve(etag=lambda body: '"one"')
    store = S3Store("b", server.url)
    first = store.list("net")[0]
    server.etag = lambda body: '"another"'
    with pytest.raises(RunFailed, match="changed while it was fetched"):
        list(store.read(first))


def test_one_object_without_a_listing(serve: Callable[..., Server]) -> None:
    for ranges in (True, False):
        store = S3Store("b", serve(etag=lambda body: None, ranges=ranges).url)
        assert store.describe("net/z") == StoredObject("net/z", "net/z", 4, "")


@pytest.mark.parametrize("prefix", ["", "/store", "/a/deep/store"])
@pytest.mark.parametrize("ending", ["", "/"])
def test_endpoints_below_a_path(serve: Callable[..., Server], tmp_path: Path, prefix: str, ending: str) -> None:
    server = serve(prefix=prefix)
    assert copied(S3Store("b", server.url + ending), tmp_path / "net") == FILES


def test_an_endpoint_without_a_scheme(serve: Callable[..., Server], tmp_path: Path) -> None:
    assert copied(S3Store("b", f"localhost:{serve().port}"), tmp_path / "net") == FILES


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("localhost:9000", "http://localhost:9000"),
        ("localhost", "http://localhost"),
        ("127.0.0.1:9000/", "http://127.0.0.1:9000"),
        ("192.168.1.5:9000/store/", "http://192.168.1.5:9000/store"),
        ("[::1]:9000", "http://[::1]:9000"),
        ("s3.lab.example", "https://s3.lab.example"),
        ("minio:9000", "https://minio:9000"),
        (" https://s3.lab.example/ ", "https://s3.lab.example"),
        ("HTTP://S3.lab.example", "http://S3.lab.example"),
    ],
)
def test_addresses_as_users_type_them(text: str, address: str) -> None:
    assert endpoint_address(text) == address


@pytest.mark.parametrize(
    "text",
    ["nonsense", "", "s3://bucket", "ftp://host", "http://", "host:port", "http://host:99999", "http://h.x/?a=b",
     "http://[::1", "https://"],
)  # fmt: skip
def test_addresses_that_are_none(text: str) -> None:
    with pytest.raises(BadInput, match="expected http://HOST:PORT"):
        endpoint_address(text)


def test_a_password_in_an_address_is_refused_and_not_repeated() -> None:
    with pytest.raises(BadInput) as error:
        endpoint_address("https://user:topsecret@host")
    assert "topsecret" not in str(error.value)


def test_self_signed_certificates_are_refused_trusted_or_ignored(
    serve: Callable[..., Server], certificate: tuple[Path, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    url = serve(certificate).url.replace("http:", "https:")
    with pytest.raises(BadInput, match=r"not trusted \(self.signed certificate\); expected --ca-bundle FILE") as error:
        S3Store("b", url).list("net")
    assert "\n" not in str(error.value)
    assert copied(S3Store("b", Endpoint(url, ca_bundle=certificate[0])), tmp_path / "trusted") == FILES
    assert "--insecure" not in caplog.text
    assert copied(S3Store("b", Endpoint(url, insecure=True)), tmp_path / "ignored") == FILES
    assert f"--insecure: the certificate of {url} is not checked" in caplog.text


def test_tls_where_none_is_spoken(serve: Callable[..., Server]) -> None:
    url = serve().url.replace("http:", "https:")
    with pytest.raises(BadInput, match="does not answer with TLS; expected an address that begins with http://"):
        S3Store("b", url).list("net")


def test_bundles_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "empty.pem").write_text("nothing")
    os.mkfifo(tmp_path / "pipe.pem")
    for path, reason in (
        (tmp_path / "empty.pem", "holds no certificates"),
        (tmp_path / "gone.pem", "no such file"),
        (tmp_path / "pipe.pem", "is no regular file"),
        (Path("/dev/zero"), "is no regular file"),
    ):
        with pytest.raises(BadInput, match=f"{path}: {reason}; expected a file of certificates, PEM"):
            Endpoint("https://127.0.0.1:9", ca_bundle=path).client(1)
