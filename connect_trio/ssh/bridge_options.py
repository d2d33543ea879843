"""How asyncssh is set up: the algorithms we offer, and all that it would do by itself switched off."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

import asyncssh

from connect_trio.ssh.loop import Loop

# No finite-field Diffie-Hellman: 6 to 23 ms of ours for each handshake of theirs. curve25519 alone is for OpenSSH
# before 9.9.
KEX: Final = ("mlkem768x25519-sha256", "curve25519-sha256", "curve25519-sha256@libssh.org")
# No ChaCha20: OpenSSH would prefer it, at 1.5 times the cost of AES-GCM, and it is Terrapin's main cipher.
CIPHERS: Final = (
    "aes128-gcm@openssh.com",
    "aes256-gcm@openssh.com",
    "aes256-ctr",
    "aes192-ctr",
    "aes128-ctr",
)
MACS: Final = ("hmac-sha2-256-etm@openssh.com", "hmac-sha2-512-etm@openssh.com")
USER_KEYS: Final = (
    "ssh-ed25519",
    "sk-ssh-ed25519@openssh.com",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ecdsa-sha2-nistp256@openssh.com",
    "rsa-sha2-512",
    "rsa-sha2-256",
)
HOST_KEYS: Final = (
    b"ssh-ed25519",
    b"ecdsa-sha2-nistp256",
    b"ecdsa-sha2-nistp384",
    b"ecdsa-sha2-nistp521",
    b"rsa-sha2-512",
    b"rsa-sha2-256",
)

PACKET: Final = 32 * 1024
KEEPALIVE: Final = 30.0
KEEPALIVES: Final = 3
SOFTWARE: Final = "Connect"


def server_options(
    loop: Loop,
    host_key: asyncssh.SSHKey,
    owner: Callable[[], asyncssh.SSHServer],
    *,
    login_timeout: float,
    rekey_bytes: int | None = None,
) -> asyncssh.SSHServerConnectionOptions:
    """Options for connections. login_timeout: seconds for handshake and login. rekey_bytes: None for the usual."""
    more = {} if rekey_bytes is None else {"rekey_bytes": rekey_bytes}
    options = asyncssh.SSHServerConnectionOptions(
        loop=loop.typed,
        config=None,
        server_factory=owner,
        server_host_keys=[host_key],
        server_version=SOFTWARE,
        kex_algs=list(KEX),
        encryption_algs=list(CIPHERS),
        mac_algs=list(MACS),
        compression_algs=["none"],
        signature_algs=list(USER_KEYS),
        login_timeout=login_timeout,
        keepalive_interval=KEEPALIVE,
        keepalive_count_max=KEEPALIVES,
        encoding=None,
        max_pktsize=PACKET,
        line_editor=False,
        line_echo=False,
        allow_scp=False,
        agent_forwarding=False,  # it would make a socket on this host; bridge_channel does it in the agent
        x11_forwarding=False,
        gss_host=None,
        gss_kex=False,
        gss_auth=False,
        host_based_auth=False,
        password_auth=False,
        kbdint_auth=False,
        public_key_auth=True,
        **more,
    )
    options.server_host_keys = _one_for_each_algorithm(options.server_host_keys)
    return options


def _one_for_each_algorithm(
    keys: OrderedDict[bytes, asyncssh.SSHKeyPair],
) -> OrderedDict[bytes, asyncssh.SSHKeyPair]:
    """A copy of the host key for each algorithm that it signs by.

    asyncssh sets the algorithm of a handshake on the one object that all connections share: overlapping handshakes
    would get each other's signature. Algorithms that must not be offered (SHA-1) are left out on the way.
    """
    found: OrderedDict[bytes, asyncssh.SSHKeyPair] = OrderedDict()
    for algorithm in HOST_KEYS:
        if algorithm in keys:
            key = copy.copy(keys[algorithm])
            key.set_sig_algorithm(algorithm)
            found[algorithm] = key
    return found
