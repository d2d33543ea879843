"""Certificates for tests: an authority of the test's own, and what it signs."""

from __future__ import annotations

import datetime
import ipaddress
from pathlib import Path

import attrs
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


@attrs.frozen
class Pair:
    """Paths of a certificate and of its private key, both PEM."""

    cert: str
    key: str


class Authority:
    """Signs certificates; its own is at `ca`."""

    def __init__(self, folder: Path, name: str = "ca") -> None:
        self._folder = folder
        self._name = name
        self._key = ec.generate_private_key(ec.SECP256R1())
        pair = self._write(name, self._key, [], authority=True)
        self.ca = pair.cert

    def issue(self, name: str, *, host: str = "127.0.0.1") -> Pair:
        """A certificate for an IP address or a host name."""
        try:
            subject: x509.GeneralName = x509.IPAddress(ipaddress.ip_address(host))
        except ValueError:
            subject = x509.DNSName(host)
        return self._write(name, ec.generate_private_key(ec.SECP256R1()), [subject], authority=False)

    def _write(
        self, name: str, key: ec.EllipticCurvePrivateKey, hosts: list[x509.GeneralName], *, authority: bool
    ) -> Pair:
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(_name(name))
            .issuer_name(_name(self._name))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )
        if hosts:
            builder = builder.add_extension(x509.SubjectAlternativeName(hosts), critical=False)
        cert_file, key_file = self._folder / f"{name}.pem", self._folder / f"{name}.key"
        cert_file.write_bytes(builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
        key_file.write_bytes(private_pem(key))
        return Pair(str(cert_file), str(key_file))


def private_pem(key: ec.EllipticCurvePrivateKey, *, phrase: bytes | None = None) -> bytes:
    """A key in PEM, encrypted if there is a pass phrase."""
    how: serialization.KeySerializationEncryption = (
        serialization.NoEncryption() if phrase is None else serialization.BestAvailableEncryption(phrase)
    )
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, how)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])
