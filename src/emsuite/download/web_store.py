"""Files behind URLs, http and https, read without credentials; parts of them by `Range`, from servers that know it."""

import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException, HTTPResponse
from urllib.error import HTTPError, URLError
from urllib.request import HTTPSHandler, OpenerDirector, Request, build_opener

from emsuite.common.errors import BadInput, RunFailed
from emsuite.download.endpoint import Endpoint, tls_problem
from emsuite.download.etags import clean_etag, same_version
from emsuite.download.object_store import StoredObject
from emsuite.download.retry import TransientError, Unreachable, with_retries

CONNECTIONS = 4
"""Connections at once, at most, however many workers ask: a web server has other guests."""

_PIECE_BYTES = 1 << 20
_SECONDS = 60
_TRIES_TO_REACH = 3
_PARTIAL, _NO_SUCH_RANGE, _TOO_MANY = 206, 416, 429


class WebStore:
    """Files on web servers; a key is the URL of a file. Their SHA-256s must be known from elsewhere."""

    def __init__(self, endpoint: Endpoint | None = None):
        self._endpoint = endpoint or Endpoint()
        self._slots = threading.BoundedSemaphore(CONNECTIONS)
        self._openers: dict[str, OpenerDirector] = {}

    def url(self, key: str) -> str:
        """Return the key."""
        return key

    def describe(self, key: str) -> StoredObject:
        """See `FileStore.describe`. Asks for the first byte, which tells whether the server knows ranges.

        Raises:
            BadInput: there is no such file, it cannot be read by anyone, or the server does not say how long it is.
        """

        def once() -> StoredObject:
            with self._answer(key, "bytes=0-0") as answer:
                has_ranges = answer.status == _PARTIAL
                told = answer.headers.get("Content-Range", "").rpartition("/")[2] if has_ranges else answer.length
                if not str(told).isdigit():
                    raise BadInput(f"{key}: the server does not tell the size of the file; expected Content-Length")
                return StoredObject(key, key, int(str(told)), _version(answer), has_ranges=has_ranges)

        return with_retries(once, tries_to_reach=_TRIES_TO_REACH)

    def read(self, stored: StoredObject, begin: int = 0, end: int | None = None) -> Iterator[bytes]:
        """See `ObjectStore.read`. Raises TransientError if the body ends early with an error."""
        last = (stored.size if end is None else end) - 1
        is_part = begin > 0 or last < stored.size - 1
        with self._answer(stored.key, f"bytes={begin}-{last}" if is_part else None) as answer:
            told = answer.headers.get("Content-Range", "")
            if is_part and answer.status != _PARTIAL:
                raise TransientError(f"{stored.key}: asked for bytes {begin}-{last}, the server gave all")
            size = told.rpartition("/")[2] if is_part else str(answer.length)
            if not same_version(stored.etag, _version(answer)) or (size.isdigit() and int(size) != stored.size):
                raise RunFailed(
                    f"{stored.key}: changed while it was fetched; the same command begins with what it is now"
                )
            if is_part and not told.startswith(f"bytes {begin}-{last}/"):
                raise TransientError(f"{stored.key}: asked for bytes {begin}-{last}, the server gave {told}")
            while piece := answer.read(_PIECE_BYTES):
                yield piece

    def part_size(self, stored: StoredObject) -> int | None:
        """Return None: the files have no parts."""
        return None

    def is_encrypted(self, stored: StoredObject) -> bool:
        """Return False."""
        return False

    @contextmanager
    def _answer(self, url: str, byte_range: str | None) -> Iterator[HTTPResponse]:
        """Yield the answer of the server; turn errors, also those while it is read, into the suite's own."""
        headers = {"Accept-Encoding": "identity"} | ({"Range": byte_range} if byte_range else {})
        try:
            with self._slots, self._opener(url).open(Request(url, headers=headers), timeout=_SECONDS) as answer:
                yield answer
        except HTTPError as error:
            error.close()
            raise _error_of(url, error.code) from None
        except URLError as error:
            if problem := tls_problem(error):
                raise BadInput(f"{url}: {problem}") from None
            raise Unreachable(f"{url}: no connection: {error.reason}") from None
        except (HTTPException, OSError) as error:
            raise TransientError(f"{url}: {str(error) or type(error).__name__}") from None

    def _opener(self, url: str) -> OpenerDirector:
        scheme = url.partition(":")[0]
        if scheme not in self._openers:
            verify = self._endpoint.verify(url)
            context = ssl.create_default_context(cafile=verify if isinstance(verify, str) else None)
            if verify is False:
                context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            self._openers[scheme] = build_opener(HTTPSHandler(context=context))
        return self._openers[scheme]


def _version(answer: HTTPResponse) -> str:
    return clean_etag(answer.headers.get("ETag")) or answer.headers.get("Last-Modified", "")


def _error_of(url: str, status: int) -> Exception:
    if status in (404, 410):
        return BadInput(f"{url}: there is no such file ({status})")
    if status in (401, 403):
        return BadInput(f"{url}: access refused ({status}); expected a file that anyone may read")
    if status == _NO_SUCH_RANGE:
        return RunFailed(f"{url}: is shorter than it was, or empty ({status}); the same command begins anew")
    if status >= 500 or status == _TOO_MANY:
        return TransientError(f"{url}: {status}")
    return RunFailed(f"{url}: the server answers {status}")
