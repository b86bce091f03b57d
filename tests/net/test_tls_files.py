"""The files of a TLS listener: what they may hold, and what an operator is told."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from dstreams.net.tls_files import TlsFiles, check_tls_files, read_tls_files
from dstreams.runtime.startup import StartupError
from tests.support.certificates import DAY, Authority, Identity, key_pem, pem


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """Who signs."""
    return Authority(tmp_path)


@pytest.fixture
def identity(authority: Authority) -> Identity:
    """A good certificate and its key."""
    return authority.issue("server")


def files(identity: Identity, *, client_ca: Path | None = None) -> TlsFiles:
    """The paths of a listener's files."""
    return TlsFiles(str(identity.certificate), str(identity.key), None if client_ca is None else str(client_ca))


def check(path: Path | str) -> str:
    """What is said of a file."""
    with pytest.raises(StartupError) as caught:
        check_tls_files(TlsFiles(str(path), str(path)))
    return str(caught.value)


class CheckTests:
    """Whether the files are there and may be read."""

    def test_good(self, identity: Identity, authority: Authority) -> None:
        """Three files that are there are all right, whatever they hold."""
        check_tls_files(files(identity, client_ca=authority.path))

    def test_which(self, identity: Identity, tmp_path: Path) -> None:
        """The certificate is looked at first, then the key, then the client CA."""
        none = str(tmp_path / "none")
        good = str(identity.certificate)
        for given, what in [
            (TlsFiles(none, none, none), "the certificate"),
            (TlsFiles(good, none, none), "the private key"),
            (TlsFiles(good, good, none), "the client CA"),
        ]:
            with pytest.raises(StartupError, match=what):
                check_tls_files(given)

    def test_missing(self, tmp_path: Path) -> None:
        """A path without a file is told, also below something that isn't a directory, or at a dangling link."""
        (tmp_path / "file").touch()
        (tmp_path / "link").symlink_to(tmp_path / "none")
        for path in (tmp_path / "none", tmp_path / "file" / "below", tmp_path / "link", ""):
            expected = f"[check_tls_files] TLS file not found: {path}: the certificate must be an existing PEM file"
            assert check(path) == expected

    def test_link(self, identity: Identity, tmp_path: Path) -> None:
        """A link to a file is as good as the file: that is how deploy hooks exchange certificates."""
        link = tmp_path / "link"
        link.symlink_to(identity.certificate)
        check_tls_files(TlsFiles(str(link), str(identity.key)))

    def test_not_regular(self, tmp_path: Path) -> None:
        """A directory or a pipe isn't opened, which could take for ever."""
        os.mkfifo(tmp_path / "pipe")
        for path in (tmp_path, tmp_path / "pipe"):
            assert check(path) == (
                f"[check_tls_files] TLS path is not a regular file: {path}: the certificate must be a PEM file"
            )

    def test_not_readable(self, identity: Identity, monkeypatch: pytest.MonkeyPatch) -> None:
        """A file that the user may not open is told with the system's reason."""

        def refuse(*_: Any) -> None:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr("builtins.open", refuse)
        assert check(identity.certificate) == (
            f"[check_tls_files] TLS file is not readable: {identity.certificate}: Permission denied: let the user that"
            " runs the server read the certificate"
        )

    def test_impossible_path(self) -> None:
        """A path that the system can't even look up is told, not raised as it comes."""
        assert check("a\0b").startswith("[check_tls_files] TLS file is not readable: ")


def refusal(given: TlsFiles) -> str:
    """What is said of files that can't be used."""
    with pytest.raises(StartupError) as caught:
        read_tls_files(given)
    text = str(caught.value)
    start = "[build_tls_context] failed to build TLS context: "
    assert text.startswith(start)
    assert "\n" not in text
    return text.removeprefix(start)


class ReadTests:
    """Whether the files fit together."""

    def test_good(self, identity: Identity) -> None:
        """A certificate and its key are read, and nothing is to be said about them."""
        material = read_tls_files(files(identity))
        assert (material.chain, material.client_cas, material.warnings) == ([identity.value], (), [])

    def test_chain(self, authority: Authority, tmp_path: Path) -> None:
        """Intermediate certificates follow the server's own."""
        between = Authority(tmp_path, "between", authority)
        identity = between.issue("server", chain=pem(between.value))
        assert read_tls_files(files(identity)).chain == [identity.value, between.value]

    def test_one_file(self, identity: Identity) -> None:
        """Certificate and key may be in the same file."""
        both = identity.certificate
        both.write_bytes(identity.key.read_bytes() + both.read_bytes())
        assert read_tls_files(TlsFiles(str(both), str(both))).chain == [identity.value]

    @pytest.mark.parametrize("form", [PrivateFormat.TraditionalOpenSSL, PrivateFormat.PKCS8])
    def test_key_forms(self, identity: Identity, form: PrivateFormat) -> None:
        """Both PEM forms of a key are read, whatever stands before it."""
        key = load_pem_private_key(identity.key.read_bytes(), None)
        block = key.private_bytes(Encoding.PEM, form, NoEncryption())
        identity.key.write_bytes(
            b"-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n" + block
        )
        read_tls_files(files(identity))

    def test_client_authorities(self, identity: Identity, authority: Authority, tmp_path: Path) -> None:
        """A file may hold several authorities."""
        other = Authority(tmp_path, "other")
        both = tmp_path / "both.pem"
        both.write_bytes(pem(authority.value) + pem(other.value))
        assert read_tls_files(files(identity, client_ca=both)).client_cas == [authority.value, other.value]

    @pytest.mark.parametrize("content", [b"", b"\x30\x82\x01\x0a", b"-----BEGIN PRIVATE KEY-----\n"])
    def test_no_certificate(self, identity: Identity, content: bytes) -> None:
        """A file without a PEM certificate is told, with what it should hold."""
        identity.certificate.write_bytes(content)
        assert refusal(files(identity)) == (
            f"no certificates in {identity.certificate}: it must hold PEM blocks that begin with"
            " -----BEGIN CERTIFICATE-----"
        )

    @pytest.mark.parametrize("rest", [b"\nrubbish", b"\nQUJD\n-----END CERTIFICATE-----\n"])
    def test_broken_certificate(self, identity: Identity, rest: bytes) -> None:
        """A certificate that can't be parsed is told."""
        identity.certificate.write_bytes(b"-----BEGIN CERTIFICATE-----" + rest)
        assert refusal(files(identity)).startswith(f"unparsable certificate in {identity.certificate}: ")

    @pytest.mark.parametrize("content", [b"", b"rubbish", b"-----BEGIN PRIVATE KEY-----\nQUJD\n"])
    def test_no_key(self, identity: Identity, content: bytes) -> None:
        """A file without a whole PEM key is told."""
        identity.key.write_bytes(content)
        assert refusal(files(identity)).startswith(f"no private key in {identity.key}: ")

    def test_broken_key(self, identity: Identity) -> None:
        """A key that can't be parsed is told."""
        identity.key.write_bytes(b"-----BEGIN PRIVATE KEY-----\nQUJD\n-----END PRIVATE KEY-----\n")
        assert refusal(files(identity)).startswith(f"unparsable private key in {identity.key}: ")

    def test_encrypted_key(self, identity: Identity) -> None:
        """An encrypted key is told, instead of asking for its passphrase on a terminal that a daemon hasn't."""
        identity.key.write_bytes(key_pem(ec.generate_private_key(ec.SECP256R1()), b"secret"))
        assert refusal(files(identity)) == (
            f"the private key in {identity.key} is encrypted: store it without a passphrase"
        )

    def test_mismatch(self, identity: Identity, authority: Authority) -> None:
        """A key of another certificate is told, with the usual mistake."""
        other = authority.issue("other")
        told = refusal(TlsFiles(str(identity.certificate), str(other.key)))
        assert told.startswith(f"the private key in {other.key} doesn't belong to the first certificate in ")
        assert "must come first" in told

    def test_vanished(self, identity: Identity) -> None:
        """A file that is gone since it was checked is told."""
        identity.key.unlink()
        assert refusal(files(identity)) == f"{identity.key} is unreadable: No such file or directory"

    def test_no_authorities(self, identity: Identity) -> None:
        """A client CA file without certificates is told."""
        assert refusal(files(identity, client_ca=identity.key)).startswith(f"no CA certificates in {identity.key}: ")

    def test_not_an_authority(self, identity: Identity) -> None:
        """A certificate that may not sign others is told: it would let nobody in."""
        told = refusal(files(identity, client_ca=identity.certificate))
        assert told.startswith(f"bad CA certificate in {identity.certificate}: 'CN=server' is no authority; ")


class WarningTests:
    """What an operator should know of certificates that can be used."""

    @pytest.mark.parametrize(
        ("start", "end", "why"),
        [
            (-2 * DAY, -DAY, "expired at"),
            (DAY, 2 * DAY, "isn't valid before"),
            (-DAY, 6 * DAY, "expires at"),
        ],
    )
    def test_times(self, authority: Authority, start: timedelta, end: timedelta, why: str) -> None:
        """A certificate that isn't valid, or not for long, is used, with one warning that names it."""
        identity = authority.issue("server", start=start, end=end)
        (warning,) = read_tls_files(files(identity)).warnings
        assert warning.startswith(f"the certificate of 'CN=server' in {identity.certificate} {why} ")

    def test_long_life(self, authority: Authority) -> None:
        """A certificate with time left is nothing to warn of."""
        assert read_tls_files(files(authority.issue("server", end=8 * DAY))).warnings == []
