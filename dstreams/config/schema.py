"""Every configuration key: its place, type, default, allowed values, and one sentence about it.

This module is the only list of them: the TOML file, the environment variables, the checks of ranges and
words, and the reference in ``docs/reference/configuration.md`` follow from it. A new key is one line here,
and a rule in :mod:`dstreams.config.validation` where type, range and words still allow too much.
"""

from __future__ import annotations

from collections.abc import Collection

from attrs import frozen

from dstreams.config.keys import key, keys_below, section
from dstreams.config.log_filter import LEVELS, LogFilter, parse_log_filter

HOUR = 3600
DAY = 24 * HOUR
YEAR = 365 * DAY

LARGEST_OFFSET = 10**16 - 1
"""What the sixteen digits of an offset hold."""

STORAGE_MODES = ("memory", "file-fast", "file-durable", "acid")
CACHE_SCOPES = ("no-store", "private", "public")
TRANSPORT_MODES = ("http", "tls", "mtls")
TLS_VERSIONS = ("1.2", "1.3")
ALPN_PROTOCOLS = {"http2": "h2", "http1": "http/1.1"}
"""What a version of HTTP is called in a TLS handshake; the preferred one first."""

_TLS_VERSION_NAMES = {f"{start}{version}": version for start in ("tls", "tls-") for version in TLS_VERSIONS}


@frozen(kw_only=True)
class Server:
    """The process and its listener."""

    bind_address: str = key(
        "0.0.0.0:4437",
        "The IP address and port to listen on, IPv6 in brackets; port 0 lets the system choose one.",
    )
    endpoints: tuple[str, ...] = key(
        (),
        "The Twisted server endpoint strings to listen on; when there are none, `server.bind_address` is listened on.",
        example=("tcp:4437", "unix:/run/durable-streams/http.sock"),
    )
    max_connections: int = key(
        0,
        "The most connections of clients at a time, on all endpoints together; others wait until one ends. 0: as many"
        " as the process may have file descriptors for, less those that it needs itself.",
    )
    drain_delay_secs: int = key(
        0,
        "How many seconds the server goes on as before after SIGTERM, but for `/readyz`, which says 503: time for"
        " load balancers to look elsewhere.",
        most=DAY,
    )
    shutdown_grace_secs: int = key(
        30,
        "How many seconds requests in flight may take to finish at shutdown, before they are cut.",
        most=DAY,
    )


@frozen(kw_only=True)
class Limits:
    """How much clients may store, and what they may call it."""

    max_memory_bytes: int = key(
        104_857_600,
        "The most bytes that all streams together may take in `memory` mode: payload and a fixed charge for each"
        " stream, message and producer.",
        least=1,
    )
    max_disk_bytes: int = key(
        0, "The most payload bytes of all streams together in the other modes; 0 for as many as the disk holds."
    )
    max_stream_bytes: int = key(10_485_760, "The most bytes that one stream may hold.", least=1, most=LARGEST_OFFSET)
    max_buffered_bytes: int = key(
        536_870_912,
        "The most bytes of request bodies that may be arriving at a time, those of up to 64 KiB left out; larger ones"
        " get 503 then. Also the most that one body may have.",
        least=65_536,
    )
    max_stream_name_bytes: int = key(
        1024, "The longest stream name, in bytes of its decoded form.", least=1, most=65_536
    )
    max_stream_name_segments: int = key(
        8, "The most segments (parts between slashes) in a stream name.", least=1, most=32_768
    )
    max_fork_depth: int = key(
        64,
        "The most ancestors of a new fork: 1 allows forks, 2 forks of forks, and so on. A read may have to look at each"
        " of them.",
        least=1,
        most=1_000_000,
    )


@frozen(kw_only=True)
class Http:
    """What HTTP clients see."""

    cors_origins: str = key(
        "*", "The origins whose scripts may use the server, separated by commas, or `*` for all of them."
    )
    allow_wildcard_cors: bool = key(False, "Whether `*` for `http.cors_origins` is meant: silences the warning.")
    cors_credentials: bool = key(
        False,
        "Whether scripts of the listed origins may send cookies, client certificates and HTTP authentication along.",
    )
    cors_allow_headers: tuple[str, ...] = key(
        (),
        "Names of request headers that scripts of other origins may send, besides those of the protocol,"
        " `Authorization`, and those of tracing (`traceparent`, `tracestate`, `baggage`).",
        example=("x-request-id",),
    )
    stream_base_path: str = key("/v1/stream", "The path below which the streams are; `/` puts them at the root.")
    cache: str = key(
        "no-store",
        "Who may keep the answers to catch-up reads: nobody, the reader's own cache, or shared caches too.",
        words=CACHE_SCOPES,
    )

    @property
    def origins(self) -> tuple[str, ...]:
        """``cors_origins`` as a list: ``("*",)``, or the origins one by one."""
        return tuple(origin.strip() for origin in self.cors_origins.split(","))


@frozen(kw_only=True)
class Storage:
    """Where the streams are kept."""

    mode: str = key(
        "memory",
        "What an acknowledged append survives: nothing; a killed process; a power loss; the same, in SQLite.",
        words=STORAGE_MODES,
        aliases={"fast": "file-fast", "file": "file-durable", "durable": "file-durable", "redb": "acid"},
    )
    data_dir: str = key("./data/streams", "The directory of all modes but `memory`.")
    checkpoint_bytes: int = key(
        67_108_864,
        "How large the journal of the file modes may grow before it is written into the data files.",
        least=4096,
        most=1 << 40,
    )
    scrub_bytes_per_second: int = key(
        1_048_576,
        "How much of what is stored is read each second and compared with its checksums, from end to end once a day, or"
        " as often as the rate allows; 0: nothing.",
        most=1 << 40,
    )
    acid_shard_count: int = key(
        4,
        "Into how many databases `acid` divides the streams: a power of two, fixed for a directory.",
        least=1,
        most=256,
    )
    acid_backend: str = key(
        "file",
        "Whether the databases of `acid` are files, or in memory for tests.",
        words=("file", "in-memory"),
        aliases={"memory": "in-memory", "inmemory": "in-memory"},
    )


@frozen(kw_only=True)
class Connection:
    """How long live readers stay."""

    long_poll_timeout_secs: int = key(
        30, "How many seconds a long-poll waits for data before it is answered with 204.", least=1, most=DAY
    )
    sse_reconnect_interval_secs: int = key(
        60,
        "After about how many seconds an SSE stream ends and its reader comes back; 0: never.",
        most=YEAR,
    )


@frozen(kw_only=True)
class TransportHttp:
    """Which versions of HTTP are spoken."""

    versions: tuple[str, ...] = key(
        ("http1",),
        "The versions of HTTP; `http2` needs `transport.mode` `tls` or `mtls`.",
        words=("http1", "http2"),
        aliases={"1.1": "http1", "http1.1": "http1", "http/1.1": "http1", "h1": "http1", "2": "http2", "h2": "http2"}
        | {"3": "http3", "h3": "http3"},
        refused={"http3": "HTTP/3 isn't offered; leave it out, or let a proxy in front of the server speak it"},
    )


def alpn_for(versions: Collection[str]) -> tuple[str, ...]:
    """The protocols that the handshake offers for some versions of HTTP, the newer first."""
    return tuple(protocol for version, protocol in ALPN_PROTOCOLS.items() if version in versions)


@frozen(kw_only=True)
class Tls:
    """Certificates and TLS versions, for `transport.mode` `tls` and `mtls`."""

    cert_path: str | None = key(
        None,
        "The PEM file with the server's certificate, followed by its chain.",
        example="/etc/durable-streams/tls/server.crt",
    )
    key_path: str | None = key(
        None, "The PEM file with the certificate's private key.", example="/etc/durable-streams/tls/server.key"
    )
    client_ca_path: str | None = key(
        None,
        "The PEM file with the authorities that clients' certificates are checked against; `mtls` only.",
        example="/etc/durable-streams/tls/client-ca.crt",
    )
    min_version: str = key("1.2", "The oldest TLS version.", words=TLS_VERSIONS, aliases=_TLS_VERSION_NAMES)
    max_version: str = key("1.3", "The newest TLS version.", words=TLS_VERSIONS, aliases=_TLS_VERSION_NAMES)
    alpn_protocols: tuple[str, ...] = key(
        ("http/1.1",),
        "The protocols offered in the handshake, the preferred one first. Follows `transport.http.versions` unless it"
        " is set in the same layer or a later one.",
        words=("h2", "http/1.1"),
        aliases={"http2": "h2", "http1": "http/1.1", "h1": "http/1.1"},
    )
    handshake_timeout_secs: int = key(
        10, "How many seconds a client may take for the handshake before it is cut.", least=1, most=HOUR
    )


@frozen(kw_only=True)
class Transport:
    """How bytes travel."""

    mode: str = key(
        "http",
        "Whether the server speaks plain HTTP, HTTPS, or HTTPS with clients that show a certificate.",
        words=TRANSPORT_MODES,
    )
    http: TransportHttp = section(TransportHttp)
    tls: Tls = section(Tls)
    connection: Connection = section(Connection)


@frozen(kw_only=True)
class Identity:
    """Whom a proxy says that the client is."""

    mode: str = key(
        "none",
        "Whether a header of a trusted proxy tells who the client is; needs `transport.mode` `mtls`.",
        words=("none", "header"),
    )
    header_name: str | None = key(None, "That header.", example="x-client-identity")
    require_tls: bool = key(True, "Has no effect: identity in a header always needs `mtls`.")


@frozen(kw_only=True)
class Proxy:
    """Reverse proxies in front of the server, and what they are believed."""

    enabled: bool = key(False, "Whether requests come through proxies.")
    forwarded_headers: str = key(
        "none",
        "Which headers tell of the client: the `X-Forwarded-` ones, or `Forwarded` (RFC 7239).",
        words=("none", "x-forwarded", "forwarded"),
        aliases={"xforwarded": "x-forwarded"},
    )
    trusted_proxies: tuple[str, ...] = key(
        (),
        "The IP addresses and networks of proxies whose headers are believed; `unix` for whoever connects through a"
        " UNIX socket.",
        example=("10.0.0.0/8", "::1"),
    )
    identity: Identity = section(Identity)


@frozen(kw_only=True)
class Observability:
    """Logs, metrics and traces."""

    log_level: str | None = key(
        None,
        "From which level on events are logged; wins over the general level of an `observability.rust_log` in the same"
        " layer or an earlier one.",
        words=LEVELS,
        aliases={"warning": "warn", "trace": "debug"},
        example="info",
    )
    log_format: str = key(
        "auto",
        "How log lines look: readable, or as JSON (ECS); `auto` is text on a terminal and JSON elsewhere.",
        words=("auto", "text", "json"),
    )
    rust_log: str = key(
        "info",
        "A filter in the form of the Rust server: a level, and `target=level` items for single parts, separated by"
        " commas. The variable `RUST_LOG` wins over every layer.",
    )
    metrics: bool = key(
        True, "Whether `/metrics` is served: by the admin listener if there is one, else with the streams."
    )
    traces: bool = key(False, "Whether OpenTelemetry traces are exported; needs the `otel` extra.")

    @property
    def log_filter(self) -> LogFilter:
        """What is logged: ``rust_log``, with ``log_level`` as its general level where that is set."""
        return parse_log_filter(self.rust_log).with_default(self.log_level)


@frozen(kw_only=True)
class Admin:
    """The listener for operators, apart from the one for clients."""

    endpoint: str | None = key(
        None,
        "Where it listens: an IP address and port, or a Twisted server endpoint string, in which TCP means the loopback"
        " interface unless it names another; there is none when unset.",
        example="127.0.0.1:9090",
    )
    allowed_hosts: tuple[str, ...] = key(
        (),
        "The hosts, besides `localhost` and loopback addresses, that requests may name in their `Host` header. Other"
        " requests get 421 on a loopback interface; elsewhere all names are allowed unless some are listed.",
        example=("metrics.example.org", "10.1.2.3"),
    )
    base_path: str = key("/admin", "The path below which its own pages are.")


@frozen(kw_only=True)
class Config:
    """The whole configuration: checked, complete, and unchanging."""

    server: Server = section(Server)
    limits: Limits = section(Limits)
    http: Http = section(Http)
    storage: Storage = section(Storage)
    transport: Transport = section(Transport)
    proxy: Proxy = section(Proxy)
    observability: Observability = section(Observability)
    admin: Admin = section(Admin)


KEYS = {each.path: each for each in keys_below(Config)}
"""Every key by its path."""
