"""Generates the configuration reference page and the file ``default.toml`` from the schema."""

from __future__ import annotations

import json
from collections.abc import Iterator

from dstreams.config.keys import LARGEST, Key, Value, sections_below
from dstreams.config.legacy import LEGACY
from dstreams.config.paths import RESERVED_PATHS
from dstreams.config.profiles import PROFILES
from dstreams.config.schema import KEYS, Config

_INTRODUCTION = """\
<!-- Written by `python -m dstreams.config reference` from dstreams/config/schema.py; change it there. -->

# Configuration

Each key can be set in TOML files and by an environment variable. A later layer overrides an earlier one, key by key:

1. the defaults below
2. the values that the profile sets by itself (`--profile NAME`, or else the variable `DS_PROFILE`)
3. `default.toml`, `NAME.toml` and `local.toml` in the configuration directory, if they exist
4. the file given with `--config`
5. environment variables

The configuration directory is the one given with `--config-dir`; by default it is `./config` if that exists, else
`/etc/durable-streams`. A profile is either built in or custom: a file `NAME.toml` in that directory.

`durable-streams config show` prints the merged values and the layer that set each of them. `durable-streams config
check` only reports whether they can be used.

All problems are reported at once, one per line, also for each item of a list (counted from 0): as `[load_config]` what
cannot be read, unknown keys and wrong types; as `[validate_config]` values that cannot be used. Problems that only
follow from another mistake are not reported until that mistake is fixed. The server then exits with status 1.
"""

_RULES = """\
## How values are written

- In TOML every value must have exactly the type of its key: a number is not a string, `1` is not `true`, and a single
  string is not a list. Words are lower-case. Unknown keys and sections are errors.
- The text of an environment variable is taken as it is: nothing is trimmed, and an empty variable is an empty value.
  Numbers are decimal digits, booleans exactly `true` or `false`, words may be in upper case. Items of a list are
  separated by commas; spaces around them and empty items are ignored. An item that contains a comma can only be set in
  a file.
- An unknown variable that begins with `DS_` and contains `__` is an error, because it is probably a misspelt key. Other
  variables that begin with `DS_` (orchestrators create such variables) are ignored, with one warning.
- A later layer cannot set a key back to unset.

## What is checked

Each value by itself:

- `server.bind_address` is an IP address and a port; names are not resolved. `server.endpoints` are endpoint strings
  of known types, without duplicates, each with its own port. `admin.endpoint` is either.
- `http.cors_origins` holds origins exactly as browsers send them: scheme and host in lower case, no default
  port, no path, no duplicates. `http.cors_allow_headers` holds header names, without duplicates and without `*`.
- `http.stream_base_path` and `admin.base_path` begin with `/` and do not end with it, except for `/` alone. They
  consist of plain segments, without a query, percent-encoding, `.` or `..`, and do not begin with one of the server's
  own pages: {reserved}. If the streams are at the root, these pages take precedence over streams with the same names.
- `storage.acid_shard_count` is a power of two.
- Paths are not blank. Lists of words have no duplicates; `transport.http.versions` has at least one item.
- `proxy.trusted_proxies` are IP addresses and networks (`10.0.0.0/8`), without duplicates.
  `proxy.identity.header_name` is the name of a header that has no other meaning.

Keys in combination:

- With `transport.mode` `http`, none of `transport.tls.cert_path`, `key_path` and `client_ca_path` is set; with `tls`,
  the first two; with `mtls`, all three. `http2` needs `tls` or `mtls`.
- `transport.tls.min_version` is not above `max_version`. `transport.tls.alpn_protocols` lists `http/1.1` for `http1`,
  `h2` for `http2`, and nothing else.
- With `proxy.enabled`, `proxy.forwarded_headers` is not `none` and there is at least one trusted proxy; without it, no
  other key of `proxy` is set. `proxy.identity.mode` `header` needs `transport.mode` `mtls` and a `header_name`, which
  is used only with that mode.
- The admin listener has another port than the listener for clients.
- With `http.cors_credentials`, `http.cors_origins` lists origins: neither `*` nor `null`, which any site can use.
- In the profiles `prod`, `prod-tls` and `prod-mtls`, `http.cors_origins` is not `*` unless `http.allow_wildcard_cors`
  is set.

Whether certificate files exist and can be used, and whether a port is free, is checked when the server starts.

## Log filters

`observability.rust_log` and the variable `RUST_LOG` hold items separated by commas: a level (`debug`, `info`, `warn`,
`error`, `critical`, `off`; `trace` means `debug`), `target=level` for one part of the server
(`dstreams.storage=debug`), or a target alone, which logs everything from that part. The longest target that covers an
event decides. Without a general level, other events are logged from `error` on. The Rust server's own target
(`durable_streams_server`) means `dstreams`, and `::` means a dot. A `RUST_LOG` that cannot be read is ignored with a
warning.

`observability.log_level` is the general level as one word. If both it and a level in `observability.rust_log` are set,
the one in the later layer applies; within one layer, `log_level` does.
""".format(reserved=", ".join(f"`{path}`" for path in RESERVED_PATHS))

_FILE_HEAD = """\
# Every configuration key with its default, or with an example if it has none. Remove the comment sign from what you
# want to change. As a file of the configuration directory (./config, or /etc/durable-streams, or the directory given
# with --config-dir) this one is read with every profile, and overrides what the profile sets by itself.
"""


def reference() -> str:
    """Return the text of ``docs/reference/configuration.md``."""
    return "\n".join([_INTRODUCTION, *_table(), *_profiles(), *_legacy(), _RULES])


def default_file() -> str:
    """Return the text of ``default.toml``: it lists every key commented out, so that the file changes nothing."""
    parts = [_FILE_HEAD]
    for path, about, keys in _grouped():
        lines = [f"\n# {about}", f"[{path}]"]
        for key in keys:
            name = key.path.rpartition(".")[2]
            lines += [f"# {key.declaration.about}{_allowed(key)}", f"#{name} = {_toml(_sample(key))}"]
        parts.append("\n".join(lines) + "\n")
    return "".join(parts)


def _table() -> Iterator[str]:
    yield "## Keys\n\n| Key | Default | Meaning |\n|---|---|---|"
    for path, about, keys in _grouped():
        yield f"| **`[{path}]`** | | **{about}** |"
        for key in keys:
            meaning = f"{key.declaration.about}{_allowed(key)}<br>`{key.variable}`"
            yield f"| `{key.path}` | {_default(key)} | {meaning} |"
    yield ""


def _profiles() -> Iterator[str]:
    yield "## Profiles\n\nThe values that a profile sets by itself; a file `NAME.toml` adds to them.\n"
    yield "| Profile | Sets |\n|---|---|"
    for name, values in PROFILES.items():
        settings = ", ".join(f"`{path} = {json.dumps(value)}`" for path, value in values.items())
        yield f"| `{name}` | {settings or 'nothing'} |"
    yield ""


def _legacy() -> Iterator[str]:
    yield "## Old names\n\nOld keys that the Rust server still accepts are read, each with a warning. Within a layer"
    yield "the new key wins; an old key in a later layer overrides a new one in an earlier layer.\n"
    yield "| Old key | Sets |\n|---|---|"
    for path, old in LEGACY.items():
        value = ' to `"0.0.0.0:PORT"`' if path == "server.port" else ""
        yield f"| `{path}`, `{old.key.variable}` | `{old.successor.path}`{value} |"
    yield "\nIf `[tls]` sets the paths of certificate and key, and no layer sets `transport.mode`, it is `tls`.\n"


def _grouped() -> Iterator[tuple[str, str, list[Key]]]:
    """Yield the sections that hold keys: path, description, keys."""
    for path, cls in sections_below(Config):
        keys = [key for key in KEYS.values() if key.path.rpartition(".")[0] == path]
        if keys:
            yield path, (cls.__doc__ or "").strip(), keys


def _toml(value: Value) -> str:
    return json.dumps(value)


def _default(key: Key) -> str:
    return "unset" if key.default is None else f"`{_toml(key.default)}`"


def _sample(key: Key) -> Value:
    """Return the value to show in a file: the default, or the example when there is no default."""
    return key.declaration.example if key.default in (None, ()) else key.default


def _allowed(key: Key) -> str:
    """Return a sentence about the allowed values, if not every value of the type is allowed."""
    declaration = key.declaration
    if declaration.words:
        return f" {'Some' if key.type is tuple else 'One'} of {', '.join(f'`{word}`' for word in declaration.words)}."
    if key.type is not int:
        return ""
    if declaration.most == LARGEST:
        return f" At least {declaration.least}."
    return f" {declaration.least} to {declaration.most}."
