"""All configuration keys: for each its place, type, default, allowed values, and a sentence of description.

This is the only list of keys. The TOML file, the environment variables, the checks of ranges and words, and the
reference in ``docs/reference/configuration.md`` are derived from it. A new key is one line here, and a rule in
:mod:`dstreams.config.value_rules` if its type, range and words do not exclude every invalid value.
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
"""The largest number that the sixteen digits of an offset can hold."""

STORAGE_MODES = ("memory", "file-fast", "file-durable", "acid")
CACHE_SCOPES = ("no-store", "private", "public")
TRANSPORT_MODES = ("http", "tls", "mtls")
TLS_VERSIONS = ("1.2", "1.3")
ALPN_PROTOCOLS = {"http2": "h2", "http1": "http/1.1"}
"""The name of each HTTP version in a TLS handshake, in order of preference."""

_TLS_VERSION_NAMES = {f"{start}{version}": version for start in ("tls", "tls-") for version in TLS_VERSIONS}


@frozen(kw_only=True)
class Server:
    """The process and its listener."""

    bind_address: str = key(
        "0.0.0.0:4437",
        "The IP address and port to listen on, IPv6 in brackets; port 0 lets the operating system choose one.",
    )
    endpoints: tuple[str, ...] = key(
        (),
        "The Twisted server endpoint strings to listen on. If there are none, the server listens on"
        " `server.bind_address`.",
        example=("tcp:4437", "unix:/run/durable-streams/http.sock"),
    )
    max_connections: int = key(
        0,
        "The maximum number of concurrent client connections, on all endpoints together; further clients wait until a"
        " connection ends. 0: as many as the process may have open file descriptors, less those that it needs itself.",
    )
    drain_delay_secs: int = key(
        0,
        "How many seconds after SIGTERM the server continues to serve as before, while `/readyz` answers 503, so that"
        " load balancers can direct clients elsewhere.",
        most=DAY,
    )
    shutdown_grace_secs: int = key(
        30,
        "How many seconds requests in flight may take to finish at shutdown before they are aborted.",
        most=DAY,
    )


@frozen(kw_only=True)
class Limits:
    """Limits on what clients may store, and on the names of streams."""

    max_memory_bytes: int = key(
        104_857_600,
        "The maximum number of bytes of all streams together in `memory` mode: payload, and a fixed charge for each"
        " stream, message and producer.",
        least=1,
    )
    max_disk_bytes: int = key(
        0,
        "The maximum number of bytes of all streams together in the other modes, counted in the same way; 0 for no"
        " limit.",
    )
    max_stream_bytes: int = key(10_485_760, "The maximum size of one stream in bytes.", least=1, most=LARGEST_OFFSET)
    max_streams: int = key(
        10_000_000,
        "The maximum number of streams, including deleted ones that are kept for their forks.",
        least=1,
    )
    max_producers: int = key(
        1_000_000,
        "The maximum number of producers of one stream. They are never forgotten while the stream exists.",
        least=1,
    )
    max_buffered_bytes: int = key(
        536_870_912,
        "The maximum number of bytes of request bodies that may be in flight at a time; bodies of up to 64 KiB are not"
        " counted, and larger ones get 503 above the limit. Also the maximum size of one body.",
        least=65_536,
    )
    max_stream_name_bytes: int = key(
        1024, "The maximum length of a stream name, in bytes of its decoded form.", least=1, most=65_536
    )
    max_stream_name_segments: int = key(
        8, "The maximum number of segments (parts between slashes) in a stream name.", least=1, most=32_768
    )
    max_fork_depth: int = key(
        64,
        "The maximum number of ancestors of a new fork: 1 allows forks, 2 forks of forks, and so on. A read may have to"
        " visit each of them.",
        least=1,
        most=1_000_000,
    )


@frozen(kw_only=True)
class Http:
    """Settings that HTTP clients can see."""

    cors_origins: str = key(
        "*", "The origins whose scripts may use the server, separated by commas, or `*` for all origins."
    )
    allow_wildcard_cors: bool = key(
        False, "Confirms that `*` for `http.cors_origins` is intended, which silences the warning about it."
    )
    cors_credentials: bool = key(
        False,
        "Whether scripts of the listed origins may send cookies, client certificates and HTTP authentication.",
    )
    cors_allow_headers: tuple[str, ...] = key(
        (),
        "Names of request headers that scripts of other origins may send, besides those of the protocol,"
        " `Authorization`, and those of tracing (`traceparent`, `tracestate`, `baggage`).",
        example=("x-request-id",),
    )
    stream_base_path: str = key("/v1/stream", "The path under which the streams are; `/` puts them at the root.")
    cache: str = key(
        "no-store",
        "Who may cache the responses to catch-up reads: nobody, the reader's own cache, or shared caches too.",
        words=CACHE_SCOPES,
    )

    @property
    def origins(self) -> tuple[str, ...]:
        """``cors_origins`` as a tuple: ``("*",)``, or the single origins."""
        return tuple(origin.strip() for origin in self.cors_origins.split(","))


@frozen(kw_only=True)
class Storage:
    """Where the streams are stored."""

    mode: str = key(
        "memory",
        "What an acknowledged append survives. `memory`: nothing. `file-fast`: a killed process. `file-durable`: a"
        " power loss. `acid`: a power loss, with the data in SQLite.",
        words=STORAGE_MODES,
        aliases={"fast": "file-fast", "file": "file-durable", "durable": "file-durable", "redb": "acid"},
    )
    data_dir: str = key("./data/streams", "The data directory of all modes except `memory`.")
    checkpoint_bytes: int = key(
        67_108_864,
        "The journal size of the file modes at which its contents are written into the data files.",
        least=4096,
        most=1 << 40,
    )
    scrub_bytes_per_second: int = key(
        1_048_576,
        "How many bytes of stored data are verified against their checksums each second. All data is verified once a"
        " day, or as often as this rate allows; 0 disables the verification.",
        most=1 << 40,
    )
    acid_shard_count: int = key(
        4,
        "The number of databases into which `acid` divides the streams: a power of two, fixed for a directory.",
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
    """How long requests of live readers last."""

    long_poll_timeout_secs: int = key(
        30, "How many seconds a long-poll waits for data before it is answered with 204.", least=1, most=DAY
    )
    sse_reconnect_interval_secs: int = key(
        60,
        "After about how many seconds an SSE response ends, so that its reader reconnects; 0: never.",
        most=YEAR,
    )


@frozen(kw_only=True)
class TransportHttp:
    """The HTTP versions that the server speaks."""

    versions: tuple[str, ...] = key(
        ("http1",),
        "The versions of HTTP; `http2` needs `transport.mode` `tls` or `mtls`.",
        words=("http1", "http2"),
        aliases={"1.1": "http1", "http1.1": "http1", "http/1.1": "http1", "h1": "http1", "2": "http2", "h2": "http2"}
        | {"3": "http3", "h3": "http3"},
        refused={"http3": "HTTP/3 is not supported; remove it, or let a proxy in front of the server speak it"},
    )


def alpn_for(versions: Collection[str]) -> tuple[str, ...]:
    """Return the protocols that the handshake offers for some HTTP versions, the newest first."""
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
        "The PEM file with the authorities that client certificates are verified against; `mtls` only.",
        example="/etc/durable-streams/tls/client-ca.crt",
    )
    min_version: str = key("1.2", "The oldest TLS version.", words=TLS_VERSIONS, aliases=_TLS_VERSION_NAMES)
    max_version: str = key("1.3", "The newest TLS version.", words=TLS_VERSIONS, aliases=_TLS_VERSION_NAMES)
    alpn_protocols: tuple[str, ...] = key(
        ("http/1.1",),
        "The protocols offered in the handshake, in order of preference. Follows `transport.http.versions` unless it"
        " is set in the same layer or a later one.",
        words=("h2", "http/1.1"),
        aliases={"http2": "h2", "http1": "http/1.1", "h1": "http/1.1"},
    )
    handshake_timeout_secs: int = key(
        10, "How many seconds a client may take for the handshake before its connection is aborted.", least=1, most=HOUR
    )


@frozen(kw_only=True)
class Transport:
    """How clients connect."""

    mode: str = key(
        "http",
        "Whether the server speaks plain HTTP, HTTPS, or HTTPS with client certificates.",
        words=TRANSPORT_MODES,
    )
    http: TransportHttp = section(TransportHttp)
    tls: Tls = section(Tls)
    connection: Connection = section(Connection)


@frozen(kw_only=True)
class Identity:
    """The client's identity, as a proxy reports it."""

    mode: str = key(
        "none",
        "Whether a header from a trusted proxy names the client; needs `transport.mode` `mtls`.",
        words=("none", "header"),
    )
    header_name: str | None = key(None, "The name of that header.", example="x-client-identity")
    require_tls: bool = key(True, "Has no effect: identity in a header always needs `mtls`.")


@frozen(kw_only=True)
class Proxy:
    """Reverse proxies in front of the server, and which of their headers are trusted."""

    enabled: bool = key(False, "Whether requests come through proxies.")
    forwarded_headers: str = key(
        "none",
        "Which headers describe the client: the `X-Forwarded-` ones, or `Forwarded` (RFC 7239).",
        words=("none", "x-forwarded", "forwarded"),
        aliases={"xforwarded": "x-forwarded"},
    )
    trusted_proxies: tuple[str, ...] = key(
        (),
        "The IP addresses and networks of proxies whose headers are trusted; `unix` for everything that connects"
        " through a UNIX socket.",
        example=("10.0.0.0/8", "::1"),
    )
    identity: Identity = section(Identity)


@frozen(kw_only=True)
class Observability:
    """Logs, metrics and traces."""

    log_level: str | None = key(
        None,
        "The lowest level of events that are logged; overrides the general level of an `observability.rust_log` in the"
        " same layer or an earlier one.",
        words=LEVELS,
        aliases={"warning": "warn", "trace": "debug"},
        example="info",
    )
    log_format: str = key(
        "auto",
        "The format of log lines: readable text, or JSON (ECS); `auto` is text on a terminal and JSON elsewhere.",
        words=("auto", "text", "json"),
    )
    rust_log: str = key(
        "info",
        "A filter in the form of the Rust server: a level, and `target=level` items for single parts, separated by"
        " commas. The variable `RUST_LOG` overrides every layer.",
    )
    metrics: bool = key(
        True, "Whether `/metrics` is served: on the admin listener if there is one, otherwise with the streams."
    )
    traces: bool = key(False, "Whether OpenTelemetry traces are exported; needs the `otel` extra.")

    @property
    def log_filter(self) -> LogFilter:
        """The log filter: ``rust_log``, with ``log_level`` as its general level if that is set."""
        return parse_log_filter(self.rust_log).with_default(self.log_level)


@frozen(kw_only=True)
class Admin:
    """The listener for operators, separate from the one for clients."""

    endpoint: str | None = key(
        None,
        "Where it listens: an IP address and port, or a Twisted server endpoint string, where TCP means the loopback"
        " interface unless the string names another. If unset, there is no admin listener.",
        example="127.0.0.1:9090",
    )
    allowed_hosts: tuple[str, ...] = key(
        (),
        "The hosts, besides `localhost` and loopback addresses, that requests may name in their `Host` header. On a"
        " loopback interface other requests get 421; elsewhere all names are allowed unless some are listed.",
        example=("metrics.example.org", "10.1.2.3"),
    )
    base_path: str = key("/admin", "The path under which its own pages are.")


@frozen(kw_only=True)
class Config:
    """The whole configuration: checked, complete, and immutable."""

    server: Server = section(Server)
    limits: Limits = section(Limits)
    http: Http = section(Http)
    storage: Storage = section(Storage)
    transport: Transport = section(Transport)
    proxy: Proxy = section(Proxy)
    observability: Observability = section(Observability)
    admin: Admin = section(Admin)


KEYS = {each.path: each for each in keys_below(Config)}
"""All keys, by path."""
