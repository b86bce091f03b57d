"""The reference page and the file ``default.toml``, written from the schema."""

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

Each key can be set in TOML files and by an environment variable. A later layer wins over
an earlier one, key by key:

1. the defaults below
2. what the profile (`--profile NAME`, or else the variable `DS_PROFILE`) sets by itself
3. `default.toml`, `NAME.toml` and `local.toml` in the configuration directory, those that exist
4. the file given with `--config`
5. environment variables

The configuration directory is the one given with `--config-dir`; without that it is `./config` if there is one, else
`/etc/durable-streams`. A profile is built in, or one of your own: a file `NAME.toml` there.

`durable-streams config show` prints what the layers come to and which of them set each key; `durable-streams config
check` only whether that can be used.

Everything that is wrong is reported at once, one line each, also for each item of a list (counted from 0):
`[load_config]` for what can't be read or isn't a key or of its type, `[validate_config]` for values that can't be used.
What only follows from another mistake isn't told until that is mended. The server then exits with status 1.
"""

_RULES = """\
## How values are written

- In TOML every value has exactly the type of its key: a number is not a string, `1` is not `true`, and a single
  string is not a list. Words are lower-case. Unknown keys and sections are errors.
- An environment variable's text is taken as it is: nothing is trimmed, and an empty variable is an empty
  value. Numbers are decimal digits, booleans exactly `true` or `false`, words may be in upper case. The items of a list
  stand between commas; blanks around them don't count, nor do empty items. An item with a comma in it can only be
  given in a file.
- An unknown variable that begins with `DS_` and contains `__` is an error, because it is most likely a
  misspelt key. Other variables that begin with `DS_` (orchestrators make such) are ignored with one warning.
- An unset key can't be set back to unset by a later layer.

## What is checked

Every value by itself:

- `server.bind_address` is an IP address and a port; names aren't looked up. `server.endpoints` are endpoint strings
  of a known type, none twice, no two for the same port. `admin.endpoint` is either.
- `http.cors_origins` holds origins exactly as browsers send them: scheme and host in lower case, no default
  port, no path, none twice. `http.cors_allow_headers` holds names of headers, none twice, and no `*`.
- `http.stream_base_path` and `admin.base_path` begin with `/` and don't end with it, except for `/` alone. They consist
  of plain segments, without a query, percent-encoding, `.` or `..`, and don't begin with one of the server's own pages:
  {reserved}. With the streams at the root, these pages win over streams of the same names.
- `storage.acid_shard_count` is a power of two.
- Paths aren't blank. Lists of words name none twice, `transport.http.versions` at least one.
- `proxy.trusted_proxies` are IP addresses and networks (`10.0.0.0/8`), none twice. `proxy.identity.header_name` is the
  name of a header that has no other meaning.

The keys together:

- `transport.mode` `http` has none of `transport.tls.cert_path`, `key_path` and `client_ca_path`, `tls` the first two,
  `mtls` all three. `http2` needs `tls` or `mtls`.
- `transport.tls.min_version` isn't above `max_version`. `transport.tls.alpn_protocols` names `http/1.1` for `http1`,
  `h2` for `http2`, and nothing else.
- With `proxy.enabled`, `proxy.forwarded_headers` isn't `none` and there is at least one trusted proxy; without it, no
  other key of `proxy` is used. `proxy.identity.mode` `header` needs `transport.mode` `mtls` and a `header_name`, which
  is used with it only.
- The admin listener has another port than the one for clients.
- With `http.cors_credentials`, `http.cors_origins` lists origins: neither `*` nor `null`, which any site can be.
- In the profiles `prod`, `prod-tls` and `prod-mtls`, `http.cors_origins` isn't `*` without `http.allow_wildcard_cors`.

Whether files of certificates exist and can be used, and whether a port is free, is found out when the server starts.

## Log filters

`observability.rust_log` and the variable `RUST_LOG` hold items separated by commas: a level (`debug`, `info`, `warn`,
`error`, `critical`, `off`; `trace` is `debug`), `target=level` for one part of the server (`dstreams.storage=debug`),
or a target alone, which logs all of it. The longest target that covers an event decides. Without a general level,
other events are logged from `error` on. The Rust server's own targets (`durable_streams_server`) mean `dstreams`, and
`::` a dot. A `RUST_LOG` that can't be read is ignored with a warning.

`observability.log_level` is the general level in one word. Of it and a level in `observability.rust_log` that of the
later layer holds; within a layer, `log_level`.
""".format(reserved=", ".join(f"`{path}`" for path in RESERVED_PATHS))

_FILE_HEAD = """\
# Every configuration key with its default, or with an example where there is none. Take the comment sign away from
# what you want to change. As a file of the configuration directory (./config, or /etc/durable-streams, or what
# --config-dir says) this one is read with every profile, and wins over what the profile sets by itself.
"""


def reference() -> str:
    """The page ``docs/reference/configuration.md``."""
    return "\n".join([_INTRODUCTION, *_table(), *_profiles(), *_legacy(), _RULES])


def default_file() -> str:
    """The file ``default.toml``: it names every key, commented out, so that it changes nothing."""
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
    yield "## Profiles\n\nWhat a profile sets by itself; a file `NAME.toml` adds to it.\n"
    yield "| Profile | Sets |\n|---|---|"
    for name, values in PROFILES.items():
        settings = ", ".join(f"`{path} = {json.dumps(value)}`" for path, value in values.items())
        yield f"| `{name}` | {settings or 'nothing'} |"
    yield ""


def _legacy() -> Iterator[str]:
    yield "## Old names\n\nKeys that the Rust server still accepts are taken, each with a warning. In one layer the"
    yield "new key wins; an old one of a later layer replaces a new one of an earlier.\n"
    yield "| Old key | Sets |\n|---|---|"
    for path, old in LEGACY.items():
        value = ' to `"0.0.0.0:PORT"`' if path == "server.port" else ""
        yield f"| `{path}`, `{old.key.variable}` | `{old.successor.path}`{value} |"
    yield "\nWhen `[tls]` gave the paths of certificate and key, and no layer has set `transport.mode`, it is `tls`.\n"


def _grouped() -> Iterator[tuple[str, str, list[Key]]]:
    """The sections that hold keys: path, what it is about, keys."""
    for path, cls in sections_below(Config):
        keys = [key for key in KEYS.values() if key.path.rpartition(".")[0] == path]
        if keys:
            yield path, (cls.__doc__ or "").strip(), keys


def _toml(value: Value) -> str:
    return json.dumps(value)


def _default(key: Key) -> str:
    return "unset" if key.default is None else f"`{_toml(key.default)}`"


def _sample(key: Key) -> Value:
    """What a file shows for a key: its default, where it has a telling one."""
    return key.declaration.example if key.default in (None, ()) else key.default


def _allowed(key: Key) -> str:
    """Which values are allowed, where that isn't every one of the type."""
    declaration = key.declaration
    if declaration.words:
        return f" {'Some' if key.type is tuple else 'One'} of {', '.join(f'`{word}`' for word in declaration.words)}."
    if key.type is not int:
        return ""
    if declaration.most == LARGEST:
        return f" At least {declaration.least}."
    return f" {declaration.least} to {declaration.most}."
