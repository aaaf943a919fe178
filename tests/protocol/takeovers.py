"""What stands where uWSGI is not: a socket pair whose one end is taken over, and the environ of a handshake."""

from __future__ import annotations

import os
import socket

__all__ = ["ENVIRON", "SocketPair"]

ENVIRON = {
    "REQUEST_METHOD": "GET",
    "PATH_INFO": "/echo",
    "QUERY_STRING": "",
    "SERVER_PROTOCOL": "HTTP/1.1",
    "HTTP_HOST": "example.com",
    "HTTP_CONNECTION": "Upgrade",
    "HTTP_UPGRADE": "websocket",
    "HTTP_SEC_WEBSOCKET_KEY": "dGhlIHNhbXBsZSBub25jZQ==",
    "HTTP_SEC_WEBSOCKET_VERSION": "13",
}


class SocketPair:
    """Takes one end of a socket pair over, and notes what is done."""

    def __init__(self) -> None:
        self.own, self.client = socket.socketpair()
        self.client.settimeout(10)
        self.noted: list[str] = []

    def has_request(self):
        return True

    def refusal(self):
        return None

    def duplicate(self):
        return os.dup(self.own.fileno())

    def release(self, start_response, status, headers, before):
        start_response(status, headers)
        self.noted.append("answered")
        before(self.own.fileno())
        self.own.close()
        self.noted.append("released")
