"""Throw-away certificates, as a small organisation would have them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from attrs import define, field, frozen
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

DAY = timedelta(days=1)


@frozen
class Identity:
    """A certificate and its key, as files.

    :param certificate: the path of a PEM file; it begins with the certificate itself.
    :param key: the path of a PEM file.
    :param value: the certificate.
    """

    certificate: Path
    key: Path
    value: x509.Certificate


@define(eq=False)
class Authority:
    """Signs certificates.

    :param directory: where their files go.
    :param name: its own name, and its file's.
    :param issuer: who signed its own certificate; itself when there is nobody.
    """

    directory: Path
    name: str = "authority"
    issuer: Authority | None = None
    key: ec.EllipticCurvePrivateKey = field(factory=lambda: ec.generate_private_key(ec.SECP256R1()), init=False)
    value: x509.Certificate = field(init=False)
    path: Path = field(init=False)

    def __attrs_post_init__(self) -> None:
        subject = _name(self.name)
        signer, key = (subject, self.key) if self.issuer is None else (self.issuer.value.subject, self.issuer.key)
        self.value = (
            _builder(subject, signer, self.key.public_key(), -DAY, 30 * DAY)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(key, hashes.SHA256())
        )
        self.path = self.directory / f"{self.name}.pem"
        self.path.write_bytes(pem(self.value))

    def issue(
        self, name: str, *, client: bool = False, start: timedelta = -DAY, end: timedelta = 30 * DAY, chain: bytes = b""
    ) -> Identity:
        """Sign a certificate for ``localhost`` and the loopback addresses.

        :param name: its common name, and its files'.
        :param client: whether it is a client's.
        :param start: when it becomes valid, from now.
        :param end: when it ceases to be.
        :param chain: PEM blocks to put behind it.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        usage = ExtendedKeyUsageOID.CLIENT_AUTH if client else ExtendedKeyUsageOID.SERVER_AUTH
        names: list[x509.GeneralName] = [x509.DNSName("localhost")]
        names += [x509.IPAddress(ip_address(text)) for text in ("127.0.0.1", "::1")]
        value = (
            _builder(_name(name), self.value.subject, key.public_key(), start, end)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .sign(self.key, hashes.SHA256())
        )
        certificate, key_file = self.directory / f"{name}.crt", self.directory / f"{name}.key"
        certificate.write_bytes(pem(value) + chain)
        key_file.write_bytes(key_pem(key))
        return Identity(certificate, key_file, value)


def pem(certificate: x509.Certificate) -> bytes:
    """A certificate as a PEM block."""
    return certificate.public_bytes(Encoding.PEM)


def key_pem(key: ec.EllipticCurvePrivateKey, passphrase: bytes | None = None) -> bytes:
    """A key as a PEM block."""
    encryption = NoEncryption() if passphrase is None else BestAvailableEncryption(passphrase)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, start: timedelta, end: timedelta
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + start)
        .not_valid_after(now + end)
    )
