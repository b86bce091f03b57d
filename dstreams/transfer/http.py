"""Asking a running server, by the protocol that every client uses and by its admin listing."""

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
"""What the admin listing says of a stream, as far as it is used."""

PAGE_STREAMS: Final = 1000
"""How many streams a page of the admin listing has at most."""

CONNECT_SECONDS: Final = 10.0
READ_SECONDS: Final = 120.0
"""How long a server may be silent."""

Body = bytes | Iterable[bytes]


@frozen
class Tls:
    """How to speak TLS with the server.

    :param authorities: a PEM file with the certificate authorities to trust, ``None`` for the system's.
    :param certificate: a PEM file with the client's certificate, ``key`` one with its key.
    """

    authorities: str | None = None
    certificate: str | None = None
    key: str | None = None


@frozen
class Answer:
    """An answer with a body that has been read."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def problem(self) -> str:
        """What the server says is wrong, in a line."""
        try:
            document = orjson.loads(self.body)
            return f"{self.status} {printable(str(document['detail' if 'detail' in document else 'title']))}"
        except (orjson.JSONDecodeError, KeyError, TypeError):
            return f"{self.status} without an explanation"


@define(eq=False)
class Server:
    """A server with streams below a URL.

    :param url: where they are, such as ``http://127.0.0.1:4437/v1/stream``.
    """

    url: str
    _tls: Tls = field(factory=Tls)
    _pool: urllib3.PoolManager = field(init=False)

    def __attrs_post_init__(self) -> None:
        check_url(self.url)
        self.url = self.url.rstrip("/")
        self._pool = urllib3.PoolManager(
            timeout=urllib3.Timeout(connect=CONNECT_SECONDS, read=READ_SECONDS),
            # Reading may be repeated; a PUT that is repeated would find what it has made itself.
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
        """The path below which the streams are."""
        return urlsplit(self.url).path

    def stream_url(self, name: str) -> str:
        """Where a stream is."""
        return f"{self.url}/{encode_name(name).decode()}"

    def ask(self, method: str, url: str, headers: Mapping[str, str] | None = None, body: Body | None = None) -> Answer:
        """Send a request, and read the whole answer.

        :raise TransferError: when there is none.
        """
        with _no_answer(url):
            response = self._pool.request(method, url, headers=headers, body=body)
            return Answer(response.status, response.headers, response.data)

    def stream(self, url: str, piece_bytes: int) -> tuple[Answer, Iterator[bytes]]:
        """Read an answer piece by piece.

        :return: the answer without its body, unless it is an error; and the pieces of the body.
        :raise TransferError: when there is none; the iterator raises it when the answer breaks off.
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
        """What the admin listing says of every stream, in the order of their names.

        :param admin_url: such as ``http://127.0.0.1:9090/admin``.
        :raise TransferError: when it can't be read.
        """
        check_url(admin_url)
        base = f"{admin_url.rstrip('/').removesuffix('/streams')}/streams?limit={PAGE_STREAMS}"
        after: str | None = None
        while True:
            url = base if after is None else f"{base}&after={quote(after, safe='')}"
            answer = self.ask("GET", url)
            if answer.status != 200:
                raise TransferError(f"{url}: {answer.problem}; --admin-url must lead to the admin listener")
            try:
                page = orjson.loads(answer.body)
                entries, following = page["streams"], page["next"]
                known = all(entry.keys() >= _MEMBERS for entry in entries) and _leads_on(after, following)
            except (orjson.JSONDecodeError, AttributeError, KeyError, TypeError):
                raise TransferError(f"{url} isn't the admin listing of this server") from None
            if not known:
                raise TransferError(f"{url} isn't the admin listing of this server")
            yield from entries
            if following is None:
                return
            after = following


def _leads_on(after: str | None, following: str | None) -> bool:
    """Whether the next page comes after this one, so that a listing ends some time."""
    return following is None or after is None or following > after


def check_url(url: str) -> None:
    """See that it is a URL that can be asked.

    :raise TransferError:
    """
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment:
        raise TransferError(f"{url!r} must be a URL such as http://127.0.0.1:4437/v1/stream")


class _no_answer:  # noqa: N801 (reads as a word in a with statement)
    """Turns what goes wrong on the way to an answer into a ``TransferError``."""

    def __init__(self, url: str) -> None:
        self._url = url

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, HTTPError | OSError):
            cause = getattr(error, "reason", None) or error
            raise TransferError(f"no answer from {self._url}: {cause}") from error
