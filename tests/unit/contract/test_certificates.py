"""What proves an attempt and what opens doors: who is believed, at what time, and by which rules of OpenSSL."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import combinations
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from api.contract.certificates import Authority
from api.contract.job.tls import Credentials, client_context, server_context, server_name
from tests.doors import KEY, STRANGE_KEY, shake_hands
from tests.pages import ROOT
from tests.ports import free_port

A, B = "af-i-a-0-1", "af-i-b-0-1"
AUTHORITY = Authority(KEY)
DOOR, CLIENT = AUTHORITY.door(A), AUTHORITY.client("api")
YEAR = 365 * 24 * 3600
NOW = int(time.time())
TIMES = [NOW - YEAR, NOW, NOW + YEAR, 1_600_000_000, int(datetime(9000, 1, 1, tzinfo=UTC).timestamp())]


def door(own: Credentials = DOOR) -> ssl.SSLContext:
    return server_context(own, AUTHORITY.certificate)


def client(own: Credentials = CLIENT) -> ssl.SSLContext:
    return client_context(own, AUTHORITY.certificate)


def signed_by(signer: Credentials, purpose: x509.ObjectIdentifier, name: str) -> Credentials:
    """Make what somebody with these credentials could sign: a certificate that is as it should be but for that."""
    issuer = x509.load_pem_x509_certificate(signer.certificate.encode())
    by = serialization.load_pem_private_key(signer.key.encode(), None)
    assert isinstance(by, ec.EllipticCurvePrivateKey)
    key = ec.generate_private_key(ec.SECP256R1())
    builder = (
        x509.CertificateBuilder()
        .subject_name(issuer.subject)
        .issuer_name(issuer.subject)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(issuer.not_valid_before_utc)
        .not_valid_after(issuer.not_valid_after_utc)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(by.public_key()), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([purpose]), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(server_name(name))]), critical=False)
    )
    own = builder.sign(by, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()
    text = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return Credentials(certificate=own + signer.certificate, key=text.decode())


# Who is believed


def test_an_attempts_door_and_a_client_of_the_installation_believe_each_other() -> None:
    for kind in ("api", "controller", "gateway"):
        shake_hands(door(), client(AUTHORITY.client(kind)), server_name(A))  # type: ignore[arg-type]


def test_a_door_is_believed_to_be_no_other_attempt() -> None:
    with pytest.raises(ssl.SSLCertVerificationError, match="ostname mismatch"):
        shake_hands(door(), client(), server_name(B))


def test_what_opens_doors_poses_as_no_attempt() -> None:
    """Not even where the name is not looked at."""
    careless = client()
    careless.check_hostname = False
    shake_hands(door(), careless, server_name(A))
    with pytest.raises(ssl.SSLCertVerificationError, match="purpose"):
        shake_hands(door(AUTHORITY.client("gateway")), careless, server_name(A))


def test_what_proves_an_attempt_opens_no_door() -> None:
    with pytest.raises(ssl.SSLCertVerificationError, match="purpose"):
        shake_hands(door(), client(AUTHORITY.door(B)), server_name(A))


@pytest.mark.parametrize("signer", [AUTHORITY.client("gateway"), DOOR], ids=["gateway", "job"])
def test_who_has_credentials_signs_none(signer: Credentials) -> None:
    """A gateway makes no client and no attempt, and neither does a job."""
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(door(), client(signed_by(signer, ExtendedKeyUsageOID.CLIENT_AUTH, A)), server_name(A))
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(door(signed_by(signer, ExtendedKeyUsageOID.SERVER_AUTH, A)), client(), server_name(A))


def test_another_installation_is_none_of_ours() -> None:
    theirs = Authority(STRANGE_KEY)
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(door(), client(theirs.client("api")), server_name(A))
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(door(theirs.door(A)), client(), server_name(A))


def test_one_attempts_certificate_is_worth_nothing_with_the_key_of_another() -> None:
    with pytest.raises(ssl.SSLError, match="KEY_VALUES_MISMATCH"):
        door(Credentials(certificate=DOOR.certificate, key=AUTHORITY.door(B).key))


def test_each_has_a_key_of_its_own_and_always_the_same() -> None:
    def made() -> list[str]:
        authority = Authority(KEY)
        clients = [authority.client(kind).key for kind in ("api", "controller", "gateway")]  # type: ignore[arg-type]
        return [*clients, *(authority.door(token).key for token in (A, B))]

    assert not [pair for pair in combinations(made(), 2) if pair[0] == pair[1]]
    assert made() == made()


# By which rules


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1], ids=["1.0", "1.1"])
@pytest.mark.parametrize("which", ["door", "client"])
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_old_versions_of_tls_are_refused(version: ssl.TLSVersion, which: str) -> None:
    sides = {"door": door(), "client": client()}
    old = sides["client" if which == "door" else "door"]
    old.set_ciphers("ALL:@SECLEVEL=0")
    old.minimum_version = old.maximum_version = version
    sides[which].set_ciphers("ALL:@SECLEVEL=0")  # the version alone is to count
    with pytest.raises(ssl.SSLError, match="UNSUPPORTED_PROTOCOL"):
        shake_hands(sides["door"], sides["client"], server_name(A))


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])
def test_ciphers_and_signatures_are_such_as_fips_approves(version: ssl.TLSVersion) -> None:
    """AES-GCM, P-256 with SHA-256 (FIPS 186-5, SP 800-52r2); the keys are HMAC-SHA-512 (FIPS 198-1)."""
    asking = client()
    asking.maximum_version = version
    agreed = shake_hands(door(), asking, server_name(A)).cipher()
    assert agreed is not None
    assert "AES" in agreed[0]
    assert "GCM" in agreed[0]
    for text in (AUTHORITY.certificate, DOOR.certificate, CLIENT.certificate):
        certificate = x509.load_pem_x509_certificate(text.encode())
        key = certificate.public_key()
        assert isinstance(key, ec.EllipticCurvePublicKey)
        assert (key.curve.name, type(certificate.signature_hash_algorithm)) == ("secp256r1", hashes.SHA256)


def test_with_tls_1_2_nothing_but_aes_gcm_is_offered() -> None:
    for context in (door(), client()):
        offered = {cipher["name"] for cipher in context.get_ciphers() if cipher["protocol"] != "TLSv1.3"}
        assert offered
        assert not [name for name in offered if "GCM" not in name or not name.startswith("ECDHE")]


SHAKES = """
import json, ssl, sys, _hashlib
from api.contract.job.tls import Credentials, client_context, server_context
told = json.load(sys.stdin)
pairs = {name: Credentials(*told[name]) for name in ("door", "client")}
server, client = server_context(pairs["door"], told["authority"]), client_context(pairs["client"], told["authority"])
a, b = ssl.MemoryBIO(), ssl.MemoryBIO()
asks, answers = client.wrap_bio(a, b, server_hostname=told["name"]), server.wrap_bio(b, a, server_side=True)
for _ in range(3):
    for side in (asks, answers):
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            pass
answers.write(b"hello")
print(_hashlib.get_fips_mode(), asks.read(5).decode(), asks.cipher()[0])
"""
CONFIGURATION = """
openssl_conf = init
.include {module}
[init]
providers = providers
alg_section = algorithms
[providers]
fips = fips_sect
base = base
[base]
activate = 1
[algorithms]
default_properties = fips=yes
"""


def openssl(*words: str, **environment: str) -> str:
    ended = subprocess.run(
        ["openssl", *words], capture_output=True, text=True, check=False, timeout=60, env=os.environ | environment
    )
    return ended.stdout + ended.stderr


MODULES = Path(os.environ.get("OPENSSL_MODULES") or openssl("version", "-m").partition('"')[2].rpartition('"')[0])

if (MODULES / "fips.so").exists():  # few machines have it: Debian from its release 13 on, as openssl-provider-fips

    def test_under_openssls_fips_provider(tmp_path: Path) -> None:
        module = tmp_path / "fips.cnf"
        made = ["fipsinstall", "-module", str(MODULES / "fips.so"), "-out", str(module)]
        said = openssl(*made, OPENSSL_MODULES=str(MODULES))
        assert module.exists(), said
        (tmp_path / "openssl.cnf").write_text(CONFIGURATION.format(module=module))
        told = {"authority": AUTHORITY.certificate, "name": server_name(A)}
        told |= {"door": (DOOR.certificate, DOOR.key), "client": (CLIENT.certificate, CLIENT.key)}  # type: ignore[dict-item]
        held = os.environ | {"OPENSSL_CONF": str(tmp_path / "openssl.cnf"), "OPENSSL_MODULES": str(MODULES)}
        ended = subprocess.run(
            [sys.executable, "-c", SHAKES], input=json.dumps(told), capture_output=True, text=True, check=False,
            timeout=60, cwd=ROOT, env=held,
        )  # fmt: skip
        assert ended.stdout == "1 hello TLS_AES_256_GCM_SHA384\n", ended.stderr


# At what time


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    for name, own in {"door": DOOR, "client": CLIENT}.items():
        (tmp_path / f"{name}.pem").write_text(own.key + own.certificate)
    (tmp_path / "authority.pem").write_text(AUTHORITY.certificate)
    return {name: str(tmp_path / f"{name}.pem") for name in ("door", "client", "authority")}


@pytest.mark.parametrize("at", TIMES, ids=range(len(TIMES)))
@pytest.mark.parametrize(("which", "purpose"), [("door", "sslserver"), ("client", "sslclient")])
def test_certificates_hold_strictly_whatever_the_clock_says(
    files: dict[str, str], which: str, purpose: str, at: int
) -> None:
    words = ["verify", "-x509_strict", "-purpose", purpose, "-attime", str(at), "-CAfile", files["authority"]]
    assert openssl(*words, files[which]).endswith(f"{files[which]}: OK\n")
    other = "sslclient" if purpose == "sslserver" else "sslserver"
    words[3] = other
    assert "purpose" in openssl(*words, files[which])


@contextlib.contextmanager
def opened(context: ssl.SSLContext) -> Iterator[int]:
    """A door that says hello to each who comes in."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            raw, _ = listening.accept()
            with raw, contextlib.suppress(OSError), context.wrap_socket(raw, server_side=True) as line:
                line.sendall(b"hello from the door\n")

        thread = threading.Thread(target=serve)
        thread.start()
        yield int(listening.getsockname()[1])
        thread.join(60)


@pytest.mark.parametrize("years", [-1, 1])
def test_a_client_whose_clock_is_a_year_off_comes_in(files: dict[str, str], years: int) -> None:
    with opened(door()) as port:
        said = openssl(
            "s_client", "-connect", f"127.0.0.1:{port}", "-servername", server_name(A), "-verify_hostname",
            server_name(A), "-attime", str(NOW + years * YEAR), "-x509_strict", "-verify_return_error",
            "-CAfile", files["authority"], "-cert", files["client"], "-quiet",
        )  # fmt: skip
    assert "hello from the door" in said


@pytest.mark.parametrize("years", [-1, 1])
def test_a_door_whose_clock_is_a_year_off_lets_in(files: dict[str, str], years: int) -> None:
    port = free_port()
    words = ["s_server", "-accept", f"127.0.0.1:{port}", "-cert", files["door"], "-CAfile", files["authority"],
             "-Verify", "1", "-verify_return_error", "-x509_strict", "-attime", str(NOW + years * YEAR),
             "-naccept", "1", "-rev", "-quiet"]  # fmt: skip
    with subprocess.Popen(["openssl", *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as server:
        raw = connected(port, server)
        with raw, client().wrap_socket(raw, server_hostname=server_name(A)) as line:
            line.sendall(b"hello\n")
            assert line.recv(100) == b"olleh\n"


def connected(port: int, server: subprocess.Popen[str]) -> socket.socket:
    deadline = time.monotonic() + 30
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=30)
        except ConnectionRefusedError:
            assert server.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
