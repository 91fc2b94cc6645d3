"""S3 endpoints, Amazon's and others: their address, their certificate, and a client that reads without credentials.

http://127.0.0.1:9000               a server of one's own
localhost:9000                      the same; loopback and private addresses are taken as http, others as https
https://host/store                  a server below a path
"""

import ipaddress
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from emsuite.common.documents import check_regular
from emsuite.common.errors import BadInput

_CONNECT_SECONDS = 10
_READ_SECONDS = 60
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Endpoint:
    """An S3 endpoint, and how its certificate is checked."""

    url: str | None = None
    """None: Amazon's. Without `http://` or `https://`, see `endpoint_address`."""
    ca_bundle: Path | None = None
    """Certificates (PEM) of the authorities to trust, for servers that no public authority vouches for."""
    insecure: bool = False
    """Do not check the certificate."""

    def client(self, connections: int) -> Any:
        """Return a boto3 client that reads public buckets, without retries of its own.

        Raises:
            BadInput: the address cannot be used, or `ca_bundle` holds no certificates.
        """
        import boto3
        from botocore import UNSIGNED
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError

        address = None if self.url is None else endpoint_address(self.url)
        settings = Config(
            signature_version=UNSIGNED,
            max_pool_connections=connections,
            connect_timeout=_CONNECT_SECONDS,
            read_timeout=_READ_SECONDS,
            retries={"total_max_attempts": 1},  # the only retries are `with_retries`: it notices truncated bodies too
            # Other endpoints than Amazon's are often hosts such as localhost: bucket.localhost does not resolve.
            s3={"addressing_style": "path"} if address else {},
        )
        verify = self.verify(address or "https://s3.amazonaws.com")
        try:
            return boto3.client("s3", endpoint_url=address, region_name="us-east-1", verify=verify, config=settings)
        except (ValueError, BotoCoreError) as error:
            raise BadInput(f"S3 endpoint {address or 'of AWS'}: {error}") from None

    def verify(self, address: str) -> bool | str | None:
        """Return how the certificate of an address is checked: the file of authorities, None for the public ones, or
        False for not at all; raise BadInput for a file without certificates.
        """
        if self.insecure:
            if address.startswith("https:"):
                _log.warning(
                    "--insecure: the certificate of %s is not checked, so that anyone on the way to it can change what "
                    "is fetched",
                    address,
                )
            return False
        if self.ca_bundle is None:
            return None
        import ssl

        check_regular(self.ca_bundle, "a file of certificates, PEM")
        try:
            ssl.create_default_context(cafile=self.ca_bundle)
        except OSError as error:  # errors of ssl are OSErrors too
            reason = "holds no certificates" if isinstance(error, ssl.SSLError) else error.strerror
            raise BadInput(f"--ca-bundle {self.ca_bundle}: {reason}; expected a file of certificates, PEM") from None
        return str(self.ca_bundle)


def endpoint_address(text: str) -> str:
    """Return the URL of an endpoint as a user typed it.

    Raises:
        BadInput: it is no address of a server, or it holds a password, which public buckets do not ask for.
    """
    url, expected = text.strip(), "expected http://HOST:PORT, https://HOST or https://HOST/PATH"
    if "@" in url:
        raise BadInput("S3 endpoint: its address holds a user or a password (@), which is not used; " + expected)
    try:
        parts = urlsplit(url if "://" in url else f"//{url}")
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise BadInput(f"S3 endpoint {url}: {error}; {expected}") from None
    is_host = "." in host or ":" in host or host == "localhost" or port is not None or bool(parts.scheme)
    if not host or not is_host or parts.scheme not in ("", "http", "https") or parts.query or parts.fragment:
        raise BadInput(f"S3 endpoint {url}: {expected}")
    address = f"{parts.scheme or _guess_scheme(host)}://{parts.netloc}{parts.path.rstrip('/')}"
    if not parts.scheme:
        _log.info("S3 endpoint %s: taken as %s", url, address)
    return address


def _guess_scheme(host: str) -> str:
    if host == "localhost" or host.endswith(".localhost"):
        return "http"
    try:
        return "http" if ipaddress.ip_address(host).is_private else "https"
    except ValueError:
        return "https"


def tls_problem(error: Exception) -> str | None:
    """Return what a user can do about an error of TLS; None if another try may help."""
    text = str(error)
    if "CERTIFICATE_VERIFY_FAILED" in text:
        reason = text.rpartition("certificate verify failed: ")[2].partition(" (_ssl")[0]
        return (
            f"its certificate is not trusted ({reason}); expected --ca-bundle FILE with the certificate of its "
            "authority, or --insecure"
        )
    if "WRONG_VERSION_NUMBER" in text or "RECORD_LAYER_FAILURE" in text:
        return "it does not answer with TLS; expected an address that begins with http://"
    return None
