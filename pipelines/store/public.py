"""A web client that asks no server but those with public addresses, wherever it is redirected to."""

import ipaddress
import socket
from typing import Any

import aiohttp


def _public_socket(address: Any) -> socket.socket:
    """The socket of a connection that is about to be made: the last moment to look at the address, whatever name it was
    found by."""
    family, kind, protocol, _, place = address
    if not _is_public(place[0]):
        raise PermissionError(f"{place[0]} is no public address; where that is meant, give --allow-input")
    made = socket.socket(family, kind, protocol)
    made.setblocking(False)
    return made


def _is_public(address: str) -> bool:
    found = ipaddress.ip_address(address)
    mapped = getattr(found, "ipv4_mapped", None)
    return (mapped or found).is_global


async def client(loop: Any = None, **options: Any) -> aiohttp.ClientSession:
    """As fsspec makes its own."""
    connector = aiohttp.TCPConnector(socket_factory=_public_socket)
    return aiohttp.ClientSession(connector=connector, **options)
