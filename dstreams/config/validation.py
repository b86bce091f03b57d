"""What a configuration must fulfil beyond its types: every problem is found, not only the first."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from dstreams.config.building import build, settings_of
from dstreams.config.cross_rules import CROSS_RULES, Finding
from dstreams.config.endpoints import is_loopback, on_loopback, place_of
from dstreams.config.keys import Key
from dstreams.config.networks import parse_trusted
from dstreams.config.problems import BadItem, ConfigError, Problem, Why, shown
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
        problem
        for setting in settings.values()
        if not setting.key.holds(setting.value)
        for problem in setting.problems(StartupPhase.VALIDATE_CONFIG, f"must be {setting.key.kind}")
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
    findings: list[tuple[str, Why]] = list(wrong.items())
    # Each key is told once, and nothing is concluded from a value that isn't what somebody meant.
    doubtful = {*wrong, *failed}
    config = build(settings)
    for rule in CROSS_RULES:
        for finding in rule(config, profile):
            if doubtful.isdisjoint((finding.path, finding.other)):
                other = "" if finding.other is None else settings[finding.other].named()
                findings.append((finding.path, _told(finding, finding.why.replace("{other}", other), settings)))
    return [problem for path, why in findings for problem in settings[path].problems(StartupPhase.VALIDATE_CONFIG, why)]


def _told(finding: Finding, why: str, settings: Mapping[str, Setting]) -> Why:
    """A finding of the whole key, or of one of its items."""
    if finding.index is None:
        return why
    items = settings[finding.path].value
    assert isinstance(items, tuple)
    return [BadItem(finding.index, items[finding.index], why)]


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


def _check_value(setting: Setting) -> Why | None:
    """What is wrong with a value by itself."""
    value, declaration = setting.value, setting.key.declaration
    if value is None:
        return None
    if isinstance(value, int) and not isinstance(value, bool):
        if value < declaration.least:
            return f"must be at least {declaration.least}"
        if value > declaration.most:
            return f"must be at most {declaration.most}"
    if isinstance(value, tuple):
        bad = [BadItem(index, item, why) for index, item in enumerate(value) if (why := _check_word(item, setting.key))]
        if bad:
            return bad
    elif isinstance(value, str) and (why := _check_word(value, setting.key)):
        return why
    rule = VALUE_RULES.get(setting.key.path)
    return None if rule is None else rule(value) or None


def _check_word(word: str, key: Key) -> str | None:
    """What is wrong with a word where only some are allowed."""
    declaration = key.declaration
    if word in declaration.refused:
        return declaration.refused[word]
    return key.choice() if declaration.words and word not in declaration.words else None
