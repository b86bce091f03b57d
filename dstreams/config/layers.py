"""The layers of a configuration, laid over each other: the later one wins, key by key.

    built-in defaults < built-in profile < default.toml < PROFILE.toml < local.toml < the file of ``--config``
    < ``DS_*`` environment variables

Nothing is coerced: a port isn't a string, and ``yes`` isn't a boolean. All problems of all layers are
reported together.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from attrs import frozen

from dstreams.config.building import build
from dstreams.config.environment import PROFILE_VARIABLE, read_environment, read_rust_log
from dstreams.config.legacy import old_tls_mode
from dstreams.config.problems import ConfigError, Problem, load_problem, nearest, printable, shown
from dstreams.config.profiles import PROFILES, DeploymentProfile, read_profile, unknown_profile
from dstreams.config.schema import KEYS, Config, alpn_for
from dstreams.config.settings import Layer, Setting
from dstreams.config.toml_file import read_file
from dstreams.config.validation import validate, warnings

DIRECTORIES = ("config", "/etc/durable-streams")
"""Where the files of the configuration directory are looked for when none is named; the first that exists."""


@frozen(kw_only=True)
class ConfigLoadOptions:
    """Where a configuration comes from, besides the environment.

    :param config_dir: the directory with ``default.toml``, ``PROFILE.toml`` and ``local.toml``, each of which may be
        missing. When it is left out: ``./config`` if that exists, else ``/etc/durable-streams``.
    :param profile: ``dev``, ``prod`` and so on; when it is left out, what the variable ``DS_PROFILE`` says.
    :param config_override: a TOML file that wins over the directory's; it must exist.
    """

    config_dir: str | None = None
    profile: str | DeploymentProfile | None = None
    config_override: str | None = None


@frozen(kw_only=True)
class LoadedConfig:
    """What the layers come to, also when that can't be used.

    :param settings: every key by its path, with its value and where that was set.
    :param files: the files that were read, the earliest layer first.
    :param problems: everything that is wrong, in any layer.
    :param warnings: what an operator should know about it, one line each.
    """

    profile: DeploymentProfile
    settings: Mapping[str, Setting]
    files: tuple[str, ...]
    problems: tuple[Problem, ...]
    warnings: tuple[str, ...]

    @property
    def config(self) -> Config:
        """The configuration itself; with problems, it can only be looked at."""
        return build(self.settings)


def load_config(options: ConfigLoadOptions | None = None, environ: Mapping[str, str] | None = None) -> Config:
    """Build the configuration from all its layers, and check it.

    :param options: the defaults when left out.
    :param environ: environment variables; those of the process when left out.
    :raise ConfigError: with everything that is wrong, in any layer.
    """
    return load(options or ConfigLoadOptions(), os.environ if environ is None else environ).config


def load(options: ConfigLoadOptions, environ: Mapping[str, str]) -> LoadedConfig:
    """The same as :func:`load_config`, with where each value comes from.

    :raise ConfigError: with everything that is wrong, in any layer.
    """
    loaded = read(options, environ)
    if loaded.problems:
        raise ConfigError(loaded.problems)
    return loaded


def read(options: ConfigLoadOptions, environ: Mapping[str, str]) -> LoadedConfig:
    """Read all layers, and check what they come to."""
    problems: list[Problem] = []
    profile = _profile(options, environ, problems)
    directory = _directory(options.config_dir, problems)
    layers = [read_profile(profile)]
    files = []
    for path, named_by in _paths(directory, profile, options.config_override):
        layer = read_file(path, named_by=named_by)
        layers.append(layer)
        if layer.found:
            files.append(path)
    if not profile.built_in and (directory is None or str(Path(directory, f"{profile}.toml")) not in files):
        problems.append(_no_such_profile(profile, directory, options, environ))
    layers += [read_environment(environ), read_rust_log(environ)]

    settings = merge(layers)
    lost = bool(problems) or any(layer.lost for layer in layers)
    problems += [problem for layer in layers for problem in layer.problems]
    failed = {path for layer in layers for path in layer.failed}
    # Without a whole layer there is no telling what goes with what.
    wrong = validate(settings, profile, failed=KEYS if lost else failed)
    said = [warning for layer in layers for warning in layer.warnings]
    said += _blank_profile(options, environ)
    said += _unused_address(settings)
    said += _undone(profile, settings, default_file=str(Path(directory, "default.toml")) if directory else None)
    if not wrong:
        said += warnings(build(settings))
    return LoadedConfig(
        profile=profile,
        settings=settings,
        files=tuple(files),
        problems=(*problems, *wrong),
        warnings=tuple(said),
    )


def merge(layers: list[Layer]) -> dict[str, Setting]:
    """Every key's setting: that of the last layer which has it.

    :param layers: without the defaults.
    """
    settings = {path: Setting(key, key.default, "default") for path, key in KEYS.items()}
    for layer in layers:
        settings.update(_followers(layer))
        settings.update(layer.settings)
    mode = old_tls_mode(layers, settings)
    if mode is not None:
        settings["transport.mode"] = mode
    return settings


def _unused_address(settings: Mapping[str, Setting]) -> Iterator[str]:
    """A warning about an address that somebody has set and that endpoints replace."""
    address, endpoints = settings["server.bind_address"], settings["server.endpoints"]
    if endpoints.value and not address.origin.startswith(("default", "profile ")):
        yield f"{address.named()} has no effect, because {endpoints.named()} says where to listen; leave one out"


def _undone(profile: DeploymentProfile, settings: Mapping[str, Setting], default_file: str | None) -> Iterator[str]:
    """Warnings about values of a profile that the file meant for all profiles sets back to the built-in default.

    So does the file that the Rust server ships, which spells out every default.
    """
    origin = f"file {printable(default_file)}" if default_file else None
    for path, value in PROFILES.get(profile.name, {}).items():
        setting = settings[path]
        if setting.origin == origin and setting.value == setting.key.default != value:
            yield f"{setting.named()} undoes what the profile {profile} sets, {shown(value)}; comment it out there"


def _followers(layer: Layer) -> Iterator[tuple[str, Setting]]:
    """The keys that change with another one of the layer."""
    versions = layer.settings.get("transport.http.versions")
    if versions is not None:
        alpn = KEYS["transport.tls.alpn_protocols"]
        assert isinstance(versions.value, tuple)
        yield alpn.path, Setting(alpn, alpn_for(versions.value), f"follows transport.http.versions ({versions.origin})")
    if "observability.rust_log" in layer.settings:
        level = KEYS["observability.log_level"]
        yield level.path, Setting(level, level.default, "default")


def _profile(options: ConfigLoadOptions, environ: Mapping[str, str], problems: list[Problem]) -> DeploymentProfile:
    if isinstance(options.profile, DeploymentProfile):
        return options.profile
    name, origin = _profile_name(options, environ)
    try:
        return DeploymentProfile.parse(name)
    except ValueError as error:
        problems.append(load_problem(unknown_profile(name or "", origin, str(error))))
        return DeploymentProfile()


def _blank_profile(options: ConfigLoadOptions, environ: Mapping[str, str]) -> Iterator[str]:
    """A warning about a name that is blank: most likely it should come from a variable that isn't set."""
    name, origin = _profile_name(options, environ)
    if name is not None and not name.strip():
        yield f"{origin} is blank, so that the profile default holds; name a profile, or leave it out"


def _profile_name(options: ConfigLoadOptions, environ: Mapping[str, str]) -> tuple[str | None, str]:
    """The profile as it was written, and where."""
    if options.profile is not None:
        return str(options.profile), "--profile"
    return environ.get(PROFILE_VARIABLE), PROFILE_VARIABLE


def _no_such_profile(
    profile: DeploymentProfile, directory: str | None, options: ConfigLoadOptions, environ: Mapping[str, str]
) -> Problem:
    """A profile of one's own without its file: most likely a misspelt name, which must not run with other values."""
    name, origin = _profile_name(options, environ)
    near = nearest(profile.name, PROFILES)
    hint = f"did you mean {near}?" if near else f"built in are {', '.join(PROFILES)}"
    place = printable(str(Path(directory or options.config_dir or DIRECTORIES[0], f"{profile}.toml")))
    return load_problem(unknown_profile(name or "", origin, f"{hint}; one of your own needs the file {place}"))


def _directory(named: str | None, problems: list[Problem]) -> str | None:
    """The configuration directory, ``None`` when there is none."""
    for path in DIRECTORIES if named is None else (named,) if named.strip() else ():
        try:
            found = Path(path).is_dir()
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            problems.append(
                load_problem(f"configuration directory can't be looked into: {shown(path)}: {reason}; name another")
            )
            return None
        if found:
            return path
    if named is not None:
        remedy = "give the path of an existing directory"
        problems.append(load_problem(f"configuration directory not found: {shown(named)} (--config-dir): {remedy}"))
    return None


def _paths(directory: str | None, profile: DeploymentProfile, override: str | None) -> Iterator[tuple[str, str | None]]:
    """The files to read, and by which option they were named; those of the directory may be missing."""
    if directory is not None:
        for name in dict.fromkeys(("default", profile.name, "local")):
            yield str(Path(directory, f"{name}.toml")), None
    if override is not None:
        yield override, "--config"
