"""The reference page and the file ``default.toml``, written from the schema."""

from __future__ import annotations

import json
from collections.abc import Iterator

from dstreams.config.keys import LARGEST, Key, Value, sections_below
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
`/etc/durable-streams`. `durable-streams config show` prints what the layers come to and which of them set each key;
`durable-streams config check` only whether it can be used.

Everything that is wrong is reported at once, one line each: `[load_config]` for what can't be read or isn't a
key or of its type, `[validate_config]` for values that can't be used. The server then exits with status 1.
"""

_RULES = """\
## How values are written

- In TOML every value has exactly the type of its key: a number is not a string, and `1` is not `true`.
  Words are lower-case. Unknown keys and sections are errors.
- An environment variable's text is taken as it is: nothing is trimmed, and an empty variable is an empty
  value. Numbers are decimal digits, booleans exactly `true` or `false`, words may be in upper case.
- An unknown variable that begins with `DS_` and contains `__` is an error, because it is most likely a
  misspelt key. Other variables that begin with `DS_` are ignored.
- `server.bind_address` is an IP address and a port; names aren't looked up.
- `http.cors_origins` holds origins exactly as browsers send them: scheme and host in lower case, no default
  port, no path.
- `http.stream_base_path` begins with `/` and doesn't end with it, except for `/` alone. With the streams at
  the root, the health checks at `/health`, `/healthz` and `/readyz` win over streams of these names.
"""

_FILE_HEAD = """\
# Every configuration key with its default, or with an example where there is none. Take the comment sign away from
# what you want to change. As a file of the configuration directory (./config, or /etc/durable-streams, or what
# --config-dir says) this one is read with every profile, and wins over what the profile sets by itself.
"""


def reference() -> str:
    """The page ``docs/reference/configuration.md``."""
    return "\n".join([_INTRODUCTION, *_sections(), *_profiles(), _RULES])


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


def _sections() -> Iterator[str]:
    for path, about, keys in _grouped():
        yield f"## `[{path}]`\n\n{about}\n\n| Key | Default | Meaning |\n|---|---|---|"
        for key in keys:
            meaning = f"{key.declaration.about}{_allowed(key)}<br>`{key.variable}`"
            yield f"| `{key.path}` | {_default(key)} | {meaning} |"
        yield ""


def _profiles() -> Iterator[str]:
    yield "## Profiles\n\n| Profile | Sets |\n|---|---|"
    for name, values in PROFILES.items():
        settings = ", ".join(f"`{path} = {json.dumps(value)}`" for path, value in values.items())
        yield f"| `{name}` | {settings or 'nothing'} |"
    yield ""


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
