"""Checks of configuration values beyond their types. They report all problems, not only the first."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from dstreams.config.addresses import parse_trusted
from dstreams.config.building import build, settings_of
from dstreams.config.cross_rules import CROSS_RULES, Finding
from dstreams.config.endpoints import is_loopback, on_loopback, place_of
from dstreams.config.keys import Key
from dstreams.config.problems import BadItem, ConfigError, Problem, Why, shown
from dstreams.config.profiles import DeploymentProfile
from dstreams.config.schema import Config
from dstreams.config.settings import Setting
from dstreams.config.value_rules import VALUE_RULES
from dstreams.runtime.startup import StartupPhase


def validate_config(config: Config, profile: DeploymentProfile | None = None) -> None:
    """Check a configuration that a program built itself; a loaded one has been checked already.

    :param profile: the stricter checks for production apply only to the production profiles.
    :raise ConfigError: if anything is wrong; it lists all problems.
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
    """Return all problems of the effective values.

    :param settings: every key by its path, each value of the key's type.
    :param profile: the stricter checks for production apply only to the production profiles.
    :param failed: keys that some layer sets to a value that cannot be read. Conflicts with these keys are not
        reported, because the intended value may be fine.
    """
    wrong = {path: why for path, setting in settings.items() if (why := _check_value(setting)) is not None}
    findings: list[tuple[str, Why]] = list(wrong.items())
    # Report each key once, and no conflicts with a value that is not the intended one.
    doubtful = {*wrong, *failed}
    config = build(settings)
    for rule in CROSS_RULES:
        for finding in rule(config, profile):
            if doubtful.isdisjoint((finding.path, finding.other)):
                other = "" if finding.other is None else settings[finding.other].named()
                findings.append((finding.path, _told(finding, finding.why.replace("{other}", other), settings)))
    return [problem for path, why in findings for problem in settings[path].problems(StartupPhase.VALIDATE_CONFIG, why)]


def _told(finding: Finding, why: str, settings: Mapping[str, Setting]) -> Why:
    """Return what a finding says about the whole key, or about one of its items."""
    if finding.index is None:
        return why
    items = settings[finding.path].value
    assert isinstance(items, tuple)
    return [BadItem(finding.index, items[finding.index], why)]


def warnings(config: Config) -> list[str]:
    """Return advice about a valid configuration for the operator, one line each."""
    return list(_warnings(config))


def _warnings(config: Config) -> Iterator[str]:
    if "*" in config.http.origins and not config.http.allow_wildcard_cors:
        yield (
            "http.cors_origins is *: scripts of every web site can use this server; list the origins, or set"
            " http.allow_wildcard_cors = true to confirm this"
        )
    for proxy in config.proxy.trusted_proxies:
        network = parse_trusted(proxy)
        if network is not None and network.prefixlen == 0:
            yield f"proxy.trusted_proxies has {proxy}: every client is trusted as a proxy; list only your proxies"
    admin = config.admin.endpoint
    place = None if admin is None else place_of(on_loopback(admin))
    if place is not None and not is_loopback(place[0]):
        yield (
            f"admin.endpoint = {shown(admin)} can be reached from other machines and has no authentication; write"
            f" 127.0.0.1:{place[1]} unless access to it is restricted by other means"
        )
    if not config.proxy.identity.require_tls:
        yield "proxy.identity.require_tls = false has no effect: identity in a header always needs mtls; remove it"


def _check_value(setting: Setting) -> Why | None:
    """Return what is wrong with a value by itself."""
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
    """Return what is wrong with a word of a key that accepts only certain words."""
    declaration = key.declaration
    if word in declaration.refused:
        return declaration.refused[word]
    return key.choice() if declaration.words and word not in declaration.words else None
