"""What a configuration must fulfil beyond its types: every problem is found, not only the first."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from dstreams.config.building import build, settings_of
from dstreams.config.cross_rules import CROSS_RULES
from dstreams.config.endpoints import is_loopback, on_loopback, place_of
from dstreams.config.networks import parse_trusted
from dstreams.config.problems import ConfigError, Problem, shown
from dstreams.config.profiles import DeploymentProfile
from dstreams.config.schema import Config
from dstreams.config.settings import Setting
from dstreams.config.value_rules import VALUE_RULES
from dstreams.startup import StartupPhase


def validate_config(config: Config, profile: DeploymentProfile | None = None) -> None:
    """Check a configuration that a program made itself; a loaded one is checked already.

    :param profile: what production asks for is asked of the production profiles only.
    :raise ConfigError: with everything that is wrong.
    """
    settings = settings_of(config)
    problems = [
        setting.problem(StartupPhase.VALIDATE_CONFIG, f"must be {setting.key.kind}")
        for setting in settings.values()
        if not setting.key.holds(setting.value)
    ]
    problems = problems or validate(settings, profile or DeploymentProfile())
    if problems:
        raise ConfigError(problems)


def validate(
    settings: Mapping[str, Setting], profile: DeploymentProfile, failed: Collection[str] = ()
) -> list[Problem]:
    """All that is wrong with the values that are in force.

    :param settings: every key by its path, each of the right type.
    :param profile: what production asks for is asked of the production profiles only.
    :param failed: keys that some layer has set to something that can't be read; what doesn't go with the value
        that is there instead may be right.
    """
    wrong = {path: why for path, setting in settings.items() if (why := _check_value(setting)) is not None}
    findings = list(wrong.items())
    # Each key is told once, and nothing is concluded from a value that isn't what somebody meant.
    doubtful = {*wrong, *failed}
    config = build(settings)
    for rule in CROSS_RULES:
        for finding in rule(config, profile):
            if doubtful.isdisjoint((finding.path, finding.other)):
                other = "" if finding.other is None else settings[finding.other].named()
                findings.append((finding.path, finding.why.replace("{other}", other)))
    return [settings[path].problem(StartupPhase.VALIDATE_CONFIG, why) for path, why in findings]


def warnings(config: Config) -> list[str]:
    """What an operator should know about a valid configuration, one line each."""
    return list(_warnings(config))


def _warnings(config: Config) -> Iterator[str]:
    if "*" in config.http.origins and not config.http.allow_wildcard_cors:
        yield (
            "http.cors_origins is *: scripts of every web site may use this server; list the origins, or set"
            " http.allow_wildcard_cors = true to say that this is meant"
        )
    for proxy in config.proxy.trusted_proxies:
        network = parse_trusted(proxy)
        if network is not None and network.prefixlen == 0:
            yield f"proxy.trusted_proxies has {proxy}: every client is believed to be a proxy; list only your proxies"
    admin = config.admin.endpoint
    place = None if admin is None else place_of(on_loopback(admin))
    if place is not None and not is_loopback(place[0]):
        yield (
            f"admin.endpoint = {shown(admin)} can be reached from other machines, and asks nobody who they are; write"
            f" 127.0.0.1:{place[1]} unless something else keeps them out"
        )
    if not config.proxy.identity.require_tls:
        yield "proxy.identity.require_tls = false has no effect: identity in a header always needs mtls; leave it out"


def _check_value(setting: Setting) -> str | None:
    """What is wrong with a value by itself."""
    value, declaration = setting.value, setting.key.declaration
    if value is None:
        return None
    if isinstance(value, int) and not isinstance(value, bool):
        if value < declaration.least:
            return f"must be at least {declaration.least}"
        if value > declaration.most:
            return f"must be at most {declaration.most}"
    for item in value if isinstance(value, tuple) else (value,):
        if item in declaration.refused:
            return f"has {item}: {declaration.refused[str(item)]}"
        if declaration.words and item not in declaration.words:
            return setting.key.choice()
    rule = VALUE_RULES.get(setting.key.path)
    return None if rule is None else rule(value)
