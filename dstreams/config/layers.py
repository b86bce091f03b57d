"""Merges the layers of the configuration. A later layer overrides an earlier one, key by key.

    built-in defaults < built-in profile < default.toml < PROFILE.toml < local.toml < the file of ``--config``
    < ``DS_*`` environment variables

Values are never converted between types: a port is not a string, and ``yes`` is not a boolean. The problems of all
layers are reported together.
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
"""Candidates for the configuration directory when none is named; the first that exists is used."""


@frozen(kw_only=True)
class ConfigLoadOptions:
    """The sources of a configuration, besides the environment.

    :param config_dir: the directory of ``default.toml``, ``PROFILE.toml`` and ``local.toml``, each of which is
        optional. Default: ``./config`` if that exists, else ``/etc/durable-streams``.
    :param profile: a profile such as ``dev`` or ``prod``. Default: the value of the variable ``DS_PROFILE``.
    :param config_override: a TOML file that overrides the directory's files; it must exist.
    """

    config_dir: str | None = None
    profile: str | DeploymentProfile | None = None
    config_override: str | None = None


@frozen(kw_only=True)
class LoadedConfig:
    """The merged layers, with their problems; the configuration is usable only if there are none.

    :param settings: every key by its path, with its value and origin.
    :param files: the files that were read, the earliest layer first.
    :param problems: everything that is wrong, in any layer.
    :param warnings: advice for the operator, one line each.
    """

    profile: DeploymentProfile
    settings: Mapping[str, Setting]
    files: tuple[str, ...]
    problems: tuple[Problem, ...]
    warnings: tuple[str, ...]

    @property
    def config(self) -> Config:
        """The configuration tree. If there are problems, it may be displayed but not used."""
        return build(self.settings)


def load_config(options: ConfigLoadOptions | None = None, environ: Mapping[str, str] | None = None) -> Config:
    """Build the configuration from all its layers and check it.

    :param options: default: no directory, profile or file is named.
    :param environ: environment variables; default: those of the process.
    :raise ConfigError: if anything is wrong in any layer; it lists all problems.
    """
    return load(options or ConfigLoadOptions(), os.environ if environ is None else environ).config


def load(options: ConfigLoadOptions, environ: Mapping[str, str]) -> LoadedConfig:
    """Do the same as :func:`load_config`, and return the origin of each value as well.

    :raise ConfigError: if anything is wrong in any layer; it lists all problems.
    """
    loaded = read(options, environ)
    if loaded.problems:
        raise ConfigError(loaded.problems)
    return loaded


def read(options: ConfigLoadOptions, environ: Mapping[str, str]) -> LoadedConfig:
    """Read and merge all layers, and check the result."""
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
    # If a whole layer could not be read, conflicts between keys may come from the missing values.
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
    """Return each key's setting, taken from the last layer that sets it.

    :param layers: all layers but the defaults.
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
    """Warn about an explicitly set bind address that is ignored because there are endpoints."""
    address, endpoints = settings["server.bind_address"], settings["server.endpoints"]
    if endpoints.value and not address.origin.startswith(("default", "profile ")):
        yield f"{address.named()} has no effect, because {endpoints.named()} says where to listen; remove one of them"


def _undone(profile: DeploymentProfile, settings: Mapping[str, Setting], default_file: str | None) -> Iterator[str]:
    """Warn about values of the profile that ``default.toml`` sets back to the built-in default.

    The file that the Rust server ships does this, because it spells out every default.
    """
    origin = f"file {printable(default_file)}" if default_file else None
    for path, value in PROFILES.get(profile.name, {}).items():
        setting = settings[path]
        if setting.origin == origin and setting.value == setting.key.default != value:
            yield f"{setting.named()} overrides what the profile {profile} sets, {shown(value)}; comment it out there"


def _followers(layer: Layer) -> Iterator[tuple[str, Setting]]:
    """Yield settings that follow from another key of the same layer."""
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
    """Warn about a blank profile name: it probably comes from a variable that is not set."""
    name, origin = _profile_name(options, environ)
    if name is not None and not name.strip():
        yield f"{origin} is blank, so the profile is default; name a profile, or remove it"


def _profile_name(options: ConfigLoadOptions, environ: Mapping[str, str]) -> tuple[str | None, str]:
    """Return the profile's name as it was written, and where."""
    if options.profile is not None:
        return str(options.profile), "--profile"
    return environ.get(PROFILE_VARIABLE), PROFILE_VARIABLE


def _no_such_profile(
    profile: DeploymentProfile, directory: str | None, options: ConfigLoadOptions, environ: Mapping[str, str]
) -> Problem:
    """Report a custom profile that has no file: the name is probably misspelt, and other values must not be used."""
    name, origin = _profile_name(options, environ)
    near = nearest(profile.name, PROFILES)
    hint = f"did you mean {near}?" if near else f"the built-in ones are {', '.join(PROFILES)}"
    place = printable(str(Path(directory or options.config_dir or DIRECTORIES[0], f"{profile}.toml")))
    return load_problem(unknown_profile(name or "", origin, f"{hint}; a custom profile needs the file {place}"))


def _directory(named: str | None, problems: list[Problem]) -> str | None:
    """Return the configuration directory, or ``None`` if there is none."""
    for path in DIRECTORIES if named is None else (named,) if named.strip() else ():
        try:
            found = Path(path).is_dir()
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            problems.append(
                load_problem(f"configuration directory cannot be accessed: {shown(path)}: {reason}; name another")
            )
            return None
        if found:
            return path
    if named is not None:
        remedy = "give the path of an existing directory"
        problems.append(load_problem(f"configuration directory not found: {shown(named)} (--config-dir): {remedy}"))
    return None


def _paths(directory: str | None, profile: DeploymentProfile, override: str | None) -> Iterator[tuple[str, str | None]]:
    """Yield the files to read, each with the option that names it, or ``None`` for a file that may be missing."""
    if directory is not None:
        for name in dict.fromkeys(("default", profile.name, "local")):
            yield str(Path(directory, f"{name}.toml")), None
    if override is not None:
        yield override, "--config"
