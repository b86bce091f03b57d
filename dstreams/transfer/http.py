"""Client for a running server: the protocol, and its admin listing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final
from urllib.parse import quote, urlsplit

import orjson
import urllib3
from attrs import define, field, frozen
from urllib3.exceptions import HTTPError

from dstreams.config.problems import printable
from dstreams.protocol.names import encode_name
from dstreams.transfer.errors import TransferError

_MEMBERS: Final = {
    "name", "content_type", "closed", "bytes", "messages", "created_at", "updated_at", "ttl_seconds", "expires_at",
    "forked_from", "fork_offset",
}  # fmt: skip
"""The members of the admin listing that are used."""

PAGE_STREAMS: Final = 1000
"""Maximum number of streams in a page of the admin listing."""

CONNECT_SECONDS: Final = 10.0
READ_SECONDS: Final = 120.0
"""Maximum number of seconds without a byte from the server."""

Body = bytes | Iterable[bytes]


@frozen
class Tls:
    """The TLS settings for a connection to the server.

    :param authorities: a PEM file with the certificate authorities to trust; ``None`` for the system's.
    :param certificate: a PEM file with the client's certificate, ``key`` one with its key.
    """

    authorities: str | None = None
    certificate: str | None = None
    key: str | None = None


@frozen
class Answer:
    """A response whose body has been read."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def problem(self) -> str:
        """The server's error message in one line."""
        try:
            document = orjson.loads(self.body)
            return f"{self.status} {printable(str(document['detail' if 'detail' in document else 'title']))}"
        except (orjson.JSONDecodeError, KeyError, TypeError):
            return f"{self.status} without an explanation"


@define(eq=False)
class Server:
    """A server of the protocol.

    :param url: the URL of its streams, such as ``http://127.0.0.1:4437/v1/stream``.
    """

    url: str
    _tls: Tls = field(factory=Tls)
    _pool: urllib3.PoolManager = field(init=False)

    def __attrs_post_init__(self) -> None:
        check_url(self.url)
        self.url = self.url.rstrip("/")
        self._pool = urllib3.PoolManager(
            timeout=urllib3.Timeout(connect=CONNECT_SECONDS, read=READ_SECONDS),
            # Only reads are retried. A repeated PUT could find the stream that it has created itself.
            retries=urllib3.Retry(
                3,
                connect=0,
                other=0,
                redirect=0,
                backoff_factor=0.5,
                allowed_methods=("GET", "HEAD"),
                status_forcelist=(503,),
                raise_on_status=False,
                raise_on_redirect=False,
            ),
            ca_certs=self._tls.authorities,
            cert_file=self._tls.certificate,
            key_file=self._tls.key,
        )

    def close(self) -> None:
        """Close all connections."""
        self._pool.clear()

    @property
    def path(self) -> str:
        """The path of the URL under which the streams are."""
        return urlsplit(self.url).path

    def stream_url(self, name: str) -> str:
        """Return the URL of a stream."""
        return f"{self.url}/{encode_name(name).decode()}"

    def ask(self, method: str, url: str, headers: Mapping[str, str] | None = None, body: Body | None = None) -> Answer:
        """Send a request and read the whole response.

        :raise TransferError: if there is no response.
        """
        with _no_answer(url):
            response = self._pool.request(method, url, headers=headers, body=body)
            return Answer(response.status, response.headers, response.data)

    def stream(self, url: str, piece_bytes: int) -> tuple[Answer, Iterator[bytes]]:
        """Send a GET and read the response's body piece by piece.

        :return: the response, with its body only if the status is an error; and an iterator of the body's pieces.
        :raise TransferError: if there is no response; the iterator raises it if the response is cut off.
        """
        with _no_answer(url):
            response = self._pool.request("GET", url, preload_content=False)
        if response.status != 200:
            with _no_answer(url):
                return Answer(response.status, response.headers, response.read()), iter(())

        def pieces() -> Iterator[bytes]:
            try:
                with _no_answer(url):
                    yield from response.stream(piece_bytes)
            finally:
                response.release_conn()

        return Answer(response.status, response.headers, b""), pieces()

    def listing(self, admin_url: str) -> Iterator[dict[str, Any]]:
        """Yield the entries of the admin listing, in the order of the streams' names.

        :param admin_url: the URL of the admin pages, such as ``http://127.0.0.1:9090/admin``.
        :raise TransferError: if it cannot be read.
        """
        check_url(admin_url)
        base = f"{admin_url.rstrip('/').removesuffix('/streams')}/streams?limit={PAGE_STREAMS}"
        after: str | None = None
        while True:
            url = base if after is None else f"{base}&after={quote(after, safe='')}"
            answer = self.ask("GET", url)
            if answer.status != 200:
                raise TransferError(f"{url}: {answer.problem}; --admin-url must be the URL of the admin listener")
            try:
                page = orjson.loads(answer.body)
                entries, following = page["streams"], page["next"]
                known = all(entry.keys() >= _MEMBERS for entry in entries) and _leads_on(after, following)
            except (orjson.JSONDecodeError, AttributeError, KeyError, TypeError):
                raise TransferError(f"{url} is not the admin listing of this server") from None
            if not known:
                raise TransferError(f"{url} is not the admin listing of this server")
            yield from entries
            if following is None:
                return
            after = following


def _leads_on(after: str | None, following: str | None) -> bool:
    """Whether the next page comes after this one; otherwise the listing would never end."""
    return following is None or after is None or following > after


def check_url(url: str) -> None:
    """Check that a URL is valid for requests.

    :raise TransferError: if it is not.
    """
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment:
        raise TransferError(f"{url!r} must be a URL such as http://127.0.0.1:4437/v1/stream")


class _no_answer:  # noqa: N801 (reads as a word in a with statement)
    """A context manager that converts network errors to a ``TransferError``."""

    def __init__(self, url: str) -> None:
        self._url = url

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, HTTPError | OSError):
            cause = getattr(error, "reason", None) or error
            raise TransferError(f"no answer from {self._url}: {cause}") from error
