"""The files of a TLS listener: certificate chain, private key, and the authorities of client certificates.

They are checked in two phases, because they fail for different people: whether they are there and may be read
is a question of paths and permissions, whether they fit together one of what is in them.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from attrs import frozen
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from dstreams.runtime.startup import StartupError, StartupPhase

EXPIRES_SOON = timedelta(days=7)
"""Days of validity below which a certificate gets a warning, because it should have been renewed by then."""

_KEY = re.compile(rb"-----BEGIN ([A-Z0-9 ]*PRIVATE KEY)-----.*?-----END \1-----", re.DOTALL)

_CERTIFICATE = b"-----BEGIN CERTIFICATE-----"


@frozen
class TlsFiles:
    """The paths of the files.

    :param certificate: a PEM file: the server's certificate, then the intermediate ones in order.
    :param key: a PEM file with the certificate's private key, not encrypted; it may be the same file.
    :param client_ca: a PEM file with the authorities that client certificates must come from; ``None`` when
        clients need none.
    """

    certificate: str
    key: str
    client_ca: str | None = None


@frozen
class TlsMaterial:
    """The contents of the files.

    :param chain: the server's certificate, and the intermediate ones.
    :param key: its private key.
    :param client_cas: the authorities of client certificates; empty when clients need none.
    :param warnings: what an operator should know about them, one line each.
    """

    chain: Sequence[x509.Certificate]
    key: PrivateKeyTypes
    client_cas: Sequence[x509.Certificate]
    warnings: Sequence[str]


def check_tls_files(files: TlsFiles) -> None:
    """Check whether all files exist and can be read.

    :raise StartupError: of the phase ``check_tls_files``, for the first that isn't.
    """
    _check_file(files.certificate, "the certificate")
    _check_file(files.key, "the private key")
    if files.client_ca is not None:
        _check_file(files.client_ca, "the client CA")


def read_tls_files(files: TlsFiles) -> TlsMaterial:
    """Read all files, and check that they belong together.

    :raise StartupError: of the phase ``build_tls_context``.
    """
    chain = _read_certificates(files.certificate, "certificates")
    key = _read_key(files.key)
    if key.public_key() != chain[0].public_key():
        raise build_error(
            f"the private key in {files.key} doesn't belong to the first certificate in {files.certificate};"
            " the server's own certificate must come first, before the intermediate ones"
        )
    warnings = _time_warnings(chain, files.certificate)
    client_cas: Sequence[x509.Certificate] = ()
    if files.client_ca is not None:
        client_cas = _read_certificates(files.client_ca, "CA certificates")
        for certificate in client_cas:
            _check_authority(certificate, files.client_ca)
        warnings += _time_warnings(client_cas, files.client_ca)
    return TlsMaterial(chain, key, client_cas, warnings)


def build_error(cause: str) -> StartupError:
    """Return an error of the phase ``build_tls_context``."""
    return StartupError(StartupPhase.BUILD_TLS_CONTEXT, f"failed to build TLS context: {cause}")


def _check_file(path: str, what: str) -> None:
    try:
        mode = os.stat(path).st_mode
        if stat.S_ISREG(mode):
            with open(path, "rb"):
                return
    except (FileNotFoundError, NotADirectoryError):
        cause = f"TLS file not found: {path}: {what} must be an existing PEM file"
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        cause = f"TLS file is not readable: {path}: {reason}: let the user that runs the server read {what}"
    else:
        cause = f"TLS path is not a regular file: {path}: {what} must be a PEM file"
    raise StartupError(StartupPhase.CHECK_TLS_FILES, cause)


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise build_error(f"{path} is unreadable: {error.strerror}") from error


def _read_certificates(path: str, what: str) -> list[x509.Certificate]:
    data = _read(path)
    if _CERTIFICATE not in data:
        raise build_error(f"no {what} in {path}: it must hold PEM blocks that begin with {_CERTIFICATE.decode()}")
    try:
        return x509.load_pem_x509_certificates(data)
    except ValueError as error:
        raise build_error(f"unparsable certificate in {path}: {_one_line(error)}") from error


def _read_key(path: str) -> PrivateKeyTypes:
    # Only the key's block: its file may hold the certificate too, or parameters.
    match = _KEY.search(_read(path))
    if match is None:
        raise build_error(
            f"no private key in {path}: it must hold a PEM block that begins with -----BEGIN PRIVATE KEY-----"
        )
    try:
        return load_pem_private_key(match[0], None)
    except TypeError as error:
        # OpenSSL would ask for the passphrase on the terminal, which a daemon doesn't have.
        raise build_error(f"the private key in {path} is encrypted: store it without a passphrase") from error
    except Exception as error:  # cryptography raises several kinds, some of its own
        raise build_error(f"unparsable private key in {path}: {_one_line(error)}") from error


def _check_authority(certificate: x509.Certificate, path: str) -> None:
    try:
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    except x509.ExtensionNotFound:
        return  # as old authorities are
    except ValueError as error:
        raise build_error(f"unparsable certificate in {path}: {_one_line(error)}") from error
    if not constraints.ca:
        raise build_error(
            f"bad CA certificate in {path}: {_name(certificate)} is no authority; give the certificate that signed"
            " the clients' certificates"
        )


def _time_warnings(certificates: Sequence[x509.Certificate], path: str) -> list[str]:
    now = datetime.now(UTC)
    found = []
    for certificate in certificates:
        start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        which = f"the certificate of {_name(certificate)} in {path}"
        if end < now:
            found.append(f"{which} expired at {end:%Y-%m-%d %H:%M:%S} UTC: renew it")
        elif start > now:
            found.append(f"{which} isn't valid before {start:%Y-%m-%d %H:%M:%S} UTC: check this machine's clock")
        elif end < now + EXPIRES_SOON:
            found.append(f"{which} expires at {end:%Y-%m-%d %H:%M:%S} UTC: renew it")
    return found


def _name(certificate: x509.Certificate) -> str:
    """Return the subject of a certificate on one line."""
    return repr(certificate.subject.rfc4514_string()) if len(certificate.subject) else "no name"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
