"""What is particular to a browser: its types of binary messages, and how it offers compression."""

from __future__ import annotations

import random

import pytest

MEBIBYTE = 2**20


@pytest.fixture
def client(client_called):
    return client_called("chromium")


@pytest.mark.parametrize(("binary_type", "kind"), [("blob", "Blob"), ("arraybuffer", "ArrayBuffer")])
@pytest.mark.parametrize("make", ["new Blob([bytes])", "bytes.buffer", "bytes", "new DataView(bytes.buffer)"])
@pytest.mark.parametrize("message", [b"", b"\0\1\2 binary \xff", b"much of the same " * 10_000])
def test_a_binary_message_comes_back_in_the_type_that_the_page_wants(connect, client, binary_type, kind, make, message):
    connect("/echo", binary_type=binary_type)
    client.send(message, make)
    assert client.receive() == message
    assert client.kind == kind


def test_10_mib_go_both_ways_as_a_blob(connect, client):
    connect("/echo", binary_type="blob")
    message = random.Random(20).randbytes(10 * MEBIBYTE)
    client.send(message, "new Blob([bytes])")
    assert client.receive() == message
    assert client.kind == "Blob"


def test_compression_is_agreed_on_as_the_browser_offers_it(connect, client):
    connect("/echo")
    assert client.extension_parameters == "permessage-deflate; server_max_window_bits=12; client_max_window_bits=12"


def test_the_server_sees_a_tab_being_closed(server, connect, client):
    """1001: going away (RFC 6455 §7.4.1)."""
    connect("/life?closed-tab")
    client.close_tab()
    server.wait_for_output("closed-tab close 1001\n")
