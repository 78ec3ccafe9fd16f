"""The certificates of an installation, all derived from its key: which it trusts is a function of that key.

A private key is an HMAC of a label under the installation's key, so every program that holds the key makes the same
ones, and no table holds any. Two certificates that were signed apart for one key and name are interchangeable.
Certificates hold from 2020 to 9999, so that no clock of a node matters; they pass strict verification (RFC 5280).
"""

from __future__ import annotations

import hashlib
import hmac
from datetime import UTC, datetime
from typing import Literal

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from api.contract.job.tls import Credentials, server_name

ClientKind = Literal["api", "controller", "gateway"]
"""Who comes to doors; each has a private key of its own."""

_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
"""Of the group P-256 (FIPS 186-5)."""
_NOT_BEFORE = datetime(2020, 1, 1, tzinfo=UTC)
_NOT_AFTER = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
_ID_LENGTH = 16


class Authority:
    """The authority of one key of an installation."""

    def __init__(self, key: bytes) -> None:
        self._installation_key = key
        self._key = self._private_key("authority")
        fingerprint = x509.SubjectKeyIdentifier.from_public_key(self._key.public_key())
        self.id = fingerprint.digest.hex()[:_ID_LENGTH]
        """Tells the keys of an installation apart; no secret."""
        self._name = _name(f"AI Factory {self.id}")
        self.certificate = _pem(self._signed_authority())
        """PEM; all that is needed to recognise what was made here."""

    def door(self, token: str) -> Credentials:
        """Make what proves that a door is this attempt's."""
        names = x509.SubjectAlternativeName([x509.DNSName(server_name(token))])
        return self._credentials(f"door {token}", "door", ExtendedKeyUsageOID.SERVER_AUTH, names)

    def client(self, kind: ClientKind) -> Credentials:
        """Make what opens the doors of all attempts under this key."""
        return self._credentials(f"client {kind}", kind, ExtendedKeyUsageOID.CLIENT_AUTH)

    def _private_key(self, label: str) -> ec.EllipticCurvePrivateKey:
        digest = hmac.new(self._installation_key, label.encode(), hashlib.sha512).digest()
        return ec.derive_private_key(int.from_bytes(digest, "big") % (_ORDER - 1) + 1, ec.SECP256R1())

    def _credentials(
        self, label: str, name: str, purpose: x509.ObjectIdentifier, *more: x509.ExtensionType
    ) -> Credentials:
        key = self._private_key(label)
        certificate = self._builder(_name(name), key.public_key())
        certificate = certificate.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        certificate = certificate.add_extension(_usage(signs_certificates=False), critical=True)
        certificate = certificate.add_extension(x509.ExtendedKeyUsage([purpose]), critical=True)
        for extension in more:
            certificate = certificate.add_extension(extension, critical=False)
        text = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return Credentials(certificate=_pem(certificate.sign(self._key, hashes.SHA256())), key=text.decode())

    def _signed_authority(self) -> x509.Certificate:
        builder = self._builder(self._name, self._key.public_key())
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        return builder.add_extension(_usage(signs_certificates=True), critical=True).sign(self._key, hashes.SHA256())

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(_NOT_BEFORE)
            .not_valid_after(_NOT_AFTER)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()
