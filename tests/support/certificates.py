"""Certificates for a test: an authority of its own, and what it has signed."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

PEM = serialization.Encoding.PEM


class Authority:
    """Keeps its files in `folder`. ca_file: its certificate; cert_file, key_file: what `server` has made last."""

    def __init__(self, folder: Path) -> None:
        self.ca_file, self.cert_file, self.key_file = (folder / name for name in ("ca.pem", "cert.pem", "key.pem"))
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name("an authority of a test")
        ca = x509.BasicConstraints(ca=True, path_length=None)
        made = self._sign(self._name, self._key.public_key()).add_extension(ca, critical=True)
        self.ca_file.write_bytes(made.sign(self._key, hashes.SHA256()).public_bytes(PEM))

    def issue(self, *hosts: str) -> None:
        """Write a certificate for host names or IP addresses, and its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        made = self._sign(_name(hosts[0]), key.public_key())
        made = made.add_extension(x509.SubjectAlternativeName(list(map(_alternative, hosts))), critical=False)
        self.cert_file.write_bytes(made.sign(self._key, hashes.SHA256()).public_bytes(PEM))
        form, password = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        self.key_file.write_bytes(key.private_bytes(PEM, form, password))

    def server(self, host: str) -> ssl.SSLContext:
        self.issue(host)
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self.cert_file, self.key_file)
        return context

    def client(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.ca_file))

    def _sign(self, subject: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        builder = x509.CertificateBuilder().subject_name(subject).issuer_name(self._name).public_key(key)
        builder = builder.serial_number(x509.random_serial_number())
        return builder.not_valid_before(now).not_valid_after(now + datetime.timedelta(days=1))


def _alternative(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, text)])
