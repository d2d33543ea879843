"""TLS to Redis: who is believed, who is turned away, and files that cannot be used."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest
import trio
from cryptography.hazmat.primitives.asymmetric import ec

from connect_trio.routing.redis import TlsFiles, open_redis
from connect_trio.routing.redis_tls import TlsFileError
from connect_trio.routing.registry import RegistryUnavailable
from tests.support.redis import RedisServer, tls_options
from tests.support.redis_certificates import Authority, Pair, private_pem
from tests.support.routes import use_everything

BAD_PEM = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"


@pytest.fixture
def tls_redis(authority: Authority, tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path, tls=True, options=tls_options(authority, authority.issue("redis")))
    server.start()
    try:
        yield server
    finally:
        server.stop()


async def assert_turned_away(server: RedisServer, files: TlsFiles, match: str) -> None:
    async with open_redis(address=server.address, tls=files) as redis:
        with pytest.raises(RegistryUnavailable, match=rf"^cannot connect to Redis at {server.address}: .*{match}"):
            await redis.ping()


@pytest.mark.redis
async def test_certificates_on_both_sides(tls_redis: RedisServer, client_files: TlsFiles) -> None:
    async with open_redis(address=tls_redis.address, tls=client_files) as redis:
        await use_everything(redis)
        await redis.store.put("k", bytes(60_000), ttl=60)
        assert await redis.store.get("k") == bytes(60_000)


@pytest.mark.redis
async def test_without_verification_any_certificate_will_do(tls_redis: RedisServer, client_files: TlsFiles) -> None:
    files = attrs.evolve(client_files, verify=False, ca_file=None)
    async with open_redis(address=tls_redis.address, tls=files) as redis:
        await redis.ping()


@pytest.mark.redis
async def test_an_authority_that_is_not_known_is_not_believed(tls_redis: RedisServer, client_files: TlsFiles) -> None:
    await assert_turned_away(tls_redis, attrs.evolve(client_files, ca_file=None), "certificate verify failed")


@pytest.mark.redis
async def test_a_private_authority_counts_alone(tls_redis: RedisServer, client_files: TlsFiles, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    stranger = Authority(tmp_path / "other", "another authority")
    await assert_turned_away(tls_redis, attrs.evolve(client_files, ca_file=stranger.ca), "certificate verify failed")


@pytest.mark.redis
async def test_a_certificate_for_another_host_is_not_believed(
    authority: Authority, client_files: TlsFiles, tmp_path: Path
) -> None:
    pair = authority.issue("elsewhere", host="redis.example")
    server = RedisServer(tmp_path, tls=True, options=tls_options(authority, pair))
    server.start()
    try:
        await assert_turned_away(server, client_files, "[Mm]ismatch.*127.0.0.1")
    finally:
        server.stop()


@pytest.mark.redis
async def test_a_client_without_a_certificate_is_turned_away_in_one_line(
    tls_redis: RedisServer, authority: Authority
) -> None:
    async with open_redis(address=tls_redis.address, tls=TlsFiles(ca_file=authority.ca)) as redis:
        with pytest.raises(RegistryUnavailable, match=f"cannot connect to Redis at {tls_redis.address}: .+"):
            await redis.ping()


@pytest.mark.redis
async def test_renewed_files_are_used_for_the_next_connection(
    tls_redis: RedisServer, authority: Authority, client_files: TlsFiles
) -> None:
    """And files that are broken meanwhile cost no connection that exists."""
    assert client_files.cert_file is not None
    path = Path(client_files.cert_file)
    good = path.read_bytes()
    async with open_redis(address=tls_redis.address, tls=client_files) as redis:
        await redis.ping()
        path.write_bytes(b"half of it")
        await redis.ping()
        tls_redis.stop()
        tls_redis.start()
        with trio.fail_after(5):
            while redis.healthy or "cert cannot be used" not in await trouble(redis.ping):
                await trio.sleep(0.05)
        path.write_bytes(good)
        await redis.wait_ready(5)
        await redis.ping()


async def trouble(ping: object) -> str:
    assert callable(ping)
    try:
        await ping()
    except RegistryUnavailable as exc:
        return str(exc)
    return ""


def test_tls_is_verified_unless_told_otherwise() -> None:
    context = TlsFiles().context()
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert TlsFiles(verify=False).context().verify_mode is ssl.CERT_NONE


@pytest.fixture
def pair(authority: Authority) -> Pair:
    return authority.issue("mine")


def refused(files: TlsFiles) -> tuple[str, str]:
    """Which file is to blame, and why."""
    with pytest.raises(TlsFileError) as caught:
        files.context()
    text = str(caught.value)
    assert "\n" not in text
    return caught.value.which, text


@pytest.mark.parametrize("content", [b"", b"nonsense", b"\xff\x00" * 100, BAD_PEM])
def test_a_file_that_is_no_pem_is_blamed(tmp_path: Path, pair: Pair, content: bytes) -> None:
    bad = tmp_path / "bad.pem"
    bad.write_bytes(content)
    no_certificate = "it holds no certificate in PEM"
    assert refused(TlsFiles(ca_file=str(bad))) == ("ca", no_certificate)
    assert refused(TlsFiles(cert_file=str(bad), key_file=pair.key)) == ("cert", no_certificate)
    assert refused(TlsFiles(cert_file=pair.cert, key_file=str(bad))) == ("key", "it holds no private key in PEM")


def test_a_file_that_cannot_be_read_is_blamed(tmp_path: Path, pair: Pair) -> None:
    for path, reason in ((tmp_path, "Is a directory"), (tmp_path / "gone", "No such file or directory")):
        why = f"it cannot be read ({reason})"
        assert refused(TlsFiles(cert_file=pair.cert, key_file=str(path))) == ("key", why)
    gone = str(tmp_path / "gone")
    assert refused(TlsFiles(ca_file=gone)) == ("ca", why)
    assert refused(TlsFiles(cert_file=gone, key_file=pair.key)) == ("cert", why)


def test_a_key_of_another_certificate_is_blamed(authority: Authority, pair: Pair) -> None:
    other = authority.issue("other")
    text = "it does not belong to the certificate"
    assert refused(TlsFiles(cert_file=pair.cert, key_file=other.key)) == ("key", text)


def test_a_key_that_is_encrypted_asks_nobody_for_its_phrase(tmp_path: Path, pair: Pair) -> None:
    locked = tmp_path / "locked.key"
    locked.write_bytes(private_pem(ec.generate_private_key(ec.SECP256R1()), phrase=b"phrase"))
    text = "it is encrypted; write one without a pass phrase"
    assert refused(TlsFiles(cert_file=pair.cert, key_file=str(locked))) == ("key", text)
