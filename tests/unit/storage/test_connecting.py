"""Getting through to a host, with names and name services of the test's own in a child process."""

from __future__ import annotations

import contextlib
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from strangers import black_hole, dripping, host, saying, silent, whole

from pouw.errors import ConfigError, ContentError
from pouw.storage.block import cid_of_bytes
from pouw.storage.gateway import GatewayStore

CID = cid_of_bytes(b"x")

SETTING = 'mount --bind "$1/hosts" /etc/hosts && mount --bind "$1/resolv" /etc/resolv.conf && '
ASKING = """
import fcntl, socket, struct, sys, threading, time
from pouw.errors import ContentError
from pouw.storage.block import cid_of_bytes
from pouw.storage.gateway import GatewayStore
url, timeout, block, mute = sys.argv[1], float(sys.argv[2]), float(sys.argv[3]), sys.argv[4]
if mute == "mute":
    with socket.socket() as up:
        fcntl.ioctl(up, 0x8914, struct.pack("16sh14x", b"lo", 0x49))
    service = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    service.bind(("127.0.0.1", 53))
store = GatewayStore(url, timeout_seconds=timeout, block_seconds=block)
begun = time.monotonic()
try:
    store.get_block(cid_of_bytes(b"x"))
    said = "served"
except ContentError as error:
    said = f"{error}"
print(f"{time.monotonic() - begun:.3f} {threading.active_count()} {said}")
"""


def child(
    folder: Path, names: str, *arguments: object, services: str = "", network: bool = True
) -> tuple[float, int, str]:
    """Seconds, threads and outcome of asking in a child, whose machine has these names."""
    shares = ["unshare", "-rm" if network else "-rmn"]
    setting = SETTING + 'shift && exec "$0" "$@"'
    (folder / "hosts").write_text(names)
    (folder / "resolv").write_text(services)
    probe = [*shares, "mount", "-t", "tmpfs", "none", "/mnt"]
    if shutil.which("unshare") is None or subprocess.run(probe, capture_output=True).returncode:
        pytest.skip("needs leave to have names of its own")
    command = [*shares, "sh", "-c", setting, sys.executable, folder, "-c", ASKING]
    done = subprocess.run(
        [*command, *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    seconds, threads, said = done.stdout.split(" ", 2)
    return float(seconds), int(threads), said


def test_connect__name_of_many_addresses_that_swallow__is_left_after_the_deadline(
    tmp_path: Path,
) -> None:
    names = "".join(f"127.0.0.{number} many.test\n" for number in range(2, 42))
    with black_hole() as port:
        seconds, _, said = child(tmp_path, names, f"http://many.test:{port}", 0.5, 1.5, "")
    assert "does not answer" in said
    assert seconds < 5


def test_connect__first_addresses_swallow_the_last_serves__comes_within_one_wait(
    tmp_path: Path,
) -> None:
    """What is dead of a name must not use up the time of what is alive."""
    with black_hole("127.0.0.2") as port, socket.create_server(("127.0.0.3", port)) as good:
        threading.Thread(target=serve_once, args=(good,), daemon=True).start()
        names = "127.0.0.2 half.test\n127.0.0.3 half.test\n"
        seconds, _, said = child(tmp_path, names, f"http://half.test:{port}", 8, 30, "")
    assert said == "served\n"
    assert seconds < 8


def serve_once(listener: socket.socket) -> None:
    connection, _ = listener.accept()
    with connection:
        connection.recv(1 << 16)
        connection.sendall(whole(b"x"))
        connection.recv(1)


def test_connect__name_service_is_silent__is_left_after_the_deadline(tmp_path: Path) -> None:
    services = "nameserver 127.0.0.1\noptions timeout:20 attempts:3\n"
    seconds, threads, said = child(
        tmp_path, "", "http://slow.test", 1, 1.5, "mute", services=services, network=False
    )
    assert "does not answer" in said
    assert seconds < 6
    assert threads <= 2


@pytest.fixture
def certified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """For a host at 127.0.0.1 whom this process trusts."""
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([])
    address = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(address, critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    secret = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    (tmp_path / "both.pem").write_bytes(secret + pem)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "both.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "both.pem")
    return context


def test_tls__host_with_a_certificate__serves_over_one_connection(
    certified: ssl.SSLContext,
) -> None:
    with host(saying(whole(b"x")), certified) as (address, asked):
        store = GatewayStore(address)
        assert [store.get_block(CID) for _ in range(3)] == [b"x"] * 3
        store.close()
    assert len(asked) == 3


def test_tls__host_without_one__is_refused(certified: ssl.SSLContext) -> None:
    with host(saying(whole(b"x")), certified) as (address, asked):
        store = GatewayStore(address.replace("127.0.0.1", "localhost"))
        with pytest.raises(ContentError, match="does not answer"):
            store.get_block(CID)
        store.close()
    assert not asked


def test_tls__byte_by_byte__is_left_after_the_deadline(certified: ssl.SSLContext) -> None:
    slowly = dripping(b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n", b"x")
    with host(slowly, certified) as (address, _):
        begun = time.monotonic()
        store = GatewayStore(address, timeout_seconds=20, block_seconds=1)
        with pytest.raises(ContentError, match="too slow"):
            store.get_block(CID)
        assert time.monotonic() - begun < 10
        store.close()


HELLO = b"\x16\x03\x03\x40\x00"
GREETINGS = {
    "silent": silent,
    "record that goes on": dripping(HELLO, b"\x02", 0.05),
    "alerts that warn": dripping(b"", b"\x15\x03\x03\x00\x02\x01\x5a", 0.05),
}


@pytest.mark.parametrize("greeting", GREETINGS.values(), ids=GREETINGS.keys())
def test_tls__handshake_that_does_not_end__is_left_after_the_wait(greeting: object) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            connection, _ = listener.accept()
            with connection, contextlib.suppress(OSError):
                connection.recv(1 << 16)
                greeting(connection, "")  # type: ignore[operator]

        threading.Thread(target=answer, daemon=True).start()
        url = f"https://127.0.0.1:{listener.getsockname()[1]}"
        store = GatewayStore(url, timeout_seconds=20, block_seconds=1)
        begun = time.monotonic()
        with pytest.raises(ContentError):
            store.get_block(CID)
        assert time.monotonic() - begun < 8


@pytest.mark.parametrize("url", ["http://a..b", f"http://{'a' * 64}.test", "http://a\u2024b"])
def test_connect__name_that_can_be_none__does_not_answer(url: str) -> None:
    with pytest.raises((ContentError, ConfigError)):
        GatewayStore(url).get_block(CID)


@pytest.mark.parametrize("url", ["http://host:99999", "http://host:x", "http://[::1"])
def test_gateway__address_without_sense__is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="not the address of a gateway"):
        GatewayStore(url)
