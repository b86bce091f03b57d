"""Every configuration key: its place, type, default, allowed values, and one sentence about it.

This module is the only list of them: the TOML file, the environment variables, the checks of ranges and
words, and the reference in ``docs/reference/configuration.md`` follow from it. A new key is one line here,
and a rule in :mod:`dstreams.config.validation` where type, range and words still allow too much.
"""

from __future__ import annotations

from attrs import frozen

from dstreams.config.keys import key, keys_below, section

DAY = 86_400
YEAR = 365 * DAY

STORAGE_MODES = ("memory", "file-fast", "file-durable", "acid")
CACHE_SCOPES = ("no-store", "private", "public")


@frozen(kw_only=True)
class Server:
    """The process and its listener."""

    bind_address: str = key(
        "0.0.0.0:4437",
        "The IP address and port to listen on, IPv6 in brackets; port 0 lets the system choose one.",
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
    max_stream_bytes: int = key(10_485_760, "The most bytes that one stream may hold.", least=1)
    max_stream_name_bytes: int = key(1024, "The longest stream name, in bytes of its decoded form.", least=1)
    max_stream_name_segments: int = key(8, "The most segments (parts between slashes) in a stream name.", least=1)


@frozen(kw_only=True)
class Http:
    """What HTTP clients see."""

    cors_origins: str = key(
        "*", "The origins whose scripts may use the server, separated by commas, or `*` for all of them."
    )
    allow_wildcard_cors: bool = key(False, "Whether `*` for `http.cors_origins` is meant: silences the warning.")
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
    acid_shard_count: int = key(
        16,
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
class Transport:
    """How bytes travel."""

    connection: Connection = section(Connection)


@frozen(kw_only=True)
class Config:
    """The whole configuration: checked, complete, and unchanging."""

    server: Server = section(Server)
    limits: Limits = section(Limits)
    http: Http = section(Http)
    storage: Storage = section(Storage)
    transport: Transport = section(Transport)


KEYS = {each.path: each for each in keys_below(Config)}
"""Every key by its path."""
