"""Opening handshakes, good and bad, and what is answered to each: the table that the tests of the handshake share.

A row is the request of RFC 6455 §1.3 with something changed. What is expected of it is given for the three ways that
it can take: straight to uWSGI's `--http-socket`, through nginx with `uwsgi_pass`, and through nginx with `proxy_pass`.
nginx looks at requests itself: it refuses some, and others it forwards mended, so that the answer is another.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

PROTOCOLS = ("chat.v2", "chat.v1")  # of the server at /subprotocols
KEY = "dGhlIHNhbXBsZSBub25jZQ=="
GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 §1.3

STANDARD: dict[str, str] = {
    "Host": "server.example",
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Key": KEY,
    "Sec-WebSocket-Version": "13",
}


class Reply(NamedTuple):
    """What is answered.

    Args:
        status: of the HTTP response; `NOTHING` where the connection is closed without one.
        says: what is in the body.
        protocol: the Sec-WebSocket-Protocol of a 101.
        extensions: the Sec-WebSocket-Extensions of a 101.
        author: whose answer it is: "uwasp", "application" (the wrapped one), "nginx", or "uwsgi".
    """

    status: int
    says: str = ""
    protocol: str | None = None
    extensions: str | None = None
    author: str = "uwasp"


NOTHING = 0


class Handshake(NamedTuple):
    """A row. A way that is `None` is not taken: the request does not come to an end there."""

    name: str
    target: str
    lines: tuple[bytes, ...]
    body: bytes
    http_socket: Reply | None
    uwsgi_pass: Reply | None
    proxy_pass: Reply | None

    @property
    def request(self) -> bytes:
        return b"\r\n".join([*self.lines, b"", self.body])

    @property
    def environ(self) -> dict[str, Any]:
        """The WSGI environ that uWSGI makes of it: a header's several values joined, one space before them dropped."""
        head = b"\r\n".join(self.lines).decode("latin-1")
        start, *headers = re.split(r"\r\n(?! )", head)  # a folded line goes on as it is
        method, _, protocol = start.split(" ")
        environ: dict[str, Any] = {"REQUEST_METHOD": method, "PATH_INFO": self.target, "SERVER_PROTOCOL": protocol}
        for header in headers:
            name, _, value = header.partition(":")
            name = name.upper().replace("-", "_")
            name = name if name in ("CONTENT_LENGTH", "CONTENT_TYPE") else f"HTTP_{name}"
            value = value.removeprefix(" ")
            environ[name] = f"{environ[name]}, {value}" if name in environ else value
        return environ

    @property
    def accept(self) -> str:
        """The Sec-WebSocket-Accept that its key asks for (RFC 6455 §4.2.2)."""
        key = self.environ["HTTP_SEC_WEBSOCKET_KEY"].split(",")[0].strip(" \t")
        return base64.b64encode(hashlib.sha1((key + GUID).encode()).digest()).decode()


_SAME = Reply(-1)


def row(
    name: str,
    reply: Reply | None,
    change: Mapping[str, str | Sequence[str] | None] | None = None,
    *,
    nginx: Reply | None = _SAME,
    uwsgi_pass: Reply | None = _SAME,
    proxy_pass: Reply | None = _SAME,
    target: str = "/echo",
    start: str | None = None,
    lines: Sequence[str] = (),
    body: bytes = b"",
) -> Handshake:
    """A row of the table.

    Args:
        name: what is special about it.
        reply: the answer of `--http-socket`, and of what is not named otherwise.
        change: headers that differ from the standard ones: a value, several lines of the same header, or none.
        nginx: the answer through nginx; `uwsgi_pass` and `proxy_pass`: the answer through only that.
        target: the path.
        start: the request line, if it is not `GET target HTTP/1.1`.
        lines: further header lines, as they are.
        body: what comes behind the headers.
    """
    headers: dict[str, str | Sequence[str] | None] = {**STANDARD, **(change or {})}
    all_lines = [start or f"GET {target} HTTP/1.1"]
    for header, value in headers.items():
        values = [] if value is None else [value] if isinstance(value, str) else value
        all_lines += [f"{header}: {one}" for one in values]
    through_nginx = reply if nginx is _SAME else nginx
    return Handshake(
        name,
        target,
        tuple(line.encode("latin-1") for line in (*all_lines, *lines)),
        body,
        reply,
        through_nginx if uwsgi_pass is _SAME else uwsgi_pass,
        through_nginx if proxy_pass is _SAME else proxy_pass,
    )


ACCEPTED = Reply(101)
NGINX_400 = Reply(400, "nginx", author="nginx")
NGINX_501 = Reply(501, "nginx", author="nginx")
NGINX_502 = Reply(502, "nginx", author="nginx")  # nginx's word for a uWSGI that closed without an answer
NGINX_505 = Reply(505, "nginx", author="nginx")
APPLICATION = Reply(200, "GET /echo", author="application")
UWSGI_CLOSES = Reply(NOTHING, author="uwsgi")
NO_SERVER = Reply(404, "there is no WebSocket at this path")
NO_BODY = Reply(400, "a request for a WebSocket has no body")
NO_HOST = Reply(400, "a request for a WebSocket has one Host header")
NEEDS_HTTP_1_1 = Reply(400, "a WebSocket needs HTTP/1.1")


def malformed(says: str) -> Reply:
    return Reply(400, says)


def other_version(version: str) -> Reply:
    return Reply(426, f"WebSocket version '{version}' is not spoken here; 13 is")


def subprotocol(protocol: str) -> Reply:
    return Reply(101, protocol=protocol)


def deflate(parameters: str = "; server_max_window_bits=12") -> Reply:
    return Reply(101, extensions=f"permessage-deflate{parameters}")


# nginx is told to set Connection itself for proxy_pass, as its documentation has it: what the client sent is lost.
# Of a header's several lines nginx before 1.23 hands one to uwsgi_pass; since then it joins them. Rows whose answer
# depends on that have no way there.
REQUEST_LINES = [
    row("standard", ACCEPTED),
    row("query", ACCEPTED, start="GET /echo?room=1&name=%00 HTTP/1.1"),
    row("escaped path", ACCEPTED, start="GET /%65cho HTTP/1.1"),
    row("dots in the path", ACCEPTED, start="GET /nowhere/../echo HTTP/1.1"),
    row("utf-8 path", ACCEPTED, target="/w\xc3\xb6rld", start="GET /w%C3%B6rld HTTP/1.1"),
    row("path that is not utf-8", NO_SERVER, target="/w\xf6rld", start="GET /w%F6rld HTTP/1.1"),
    row("unknown path", NO_SERVER, target="/nowhere"),
    row("path with a slash more at its end", NO_SERVER, target="/echo/"),
    # nginx's $document_uri has it merged; $request_uri, which proxy_pass takes, has not.
    row("path with a slash more at its start", NO_SERVER, target="//echo", uwsgi_pass=ACCEPTED),
    row("path in another case", NO_SERVER, target="/Echo"),
    # RFC 6455 §4.2.1 allows it; uWSGI hands on all of it as the path, to any application.
    row(
        "absolute-form",
        NO_SERVER,
        target="http://server.example/echo",
        nginx=ACCEPTED,
    ),
    row("asterisk-form", NO_SERVER, target="*", nginx=NGINX_400),
    row("POST", malformed("with GET, not 'POST'"), start="POST /echo HTTP/1.1"),
    row("PUT", malformed("with GET, not 'PUT'"), start="PUT /echo HTTP/1.1"),
    # RFC 8441 is HTTP/2's way; nginx 1.21.1 began to refuse it.
    row("CONNECT", malformed("with GET, not 'CONNECT'"), start="CONNECT /echo HTTP/1.1", nginx=None),
    row("get in lower case", malformed("with GET, not 'get'"), start="get /echo HTTP/1.1", nginx=NGINX_400),
    # nginx's proxy_http_version makes it 1.1.
    row("HTTP/1.0", NEEDS_HTTP_1_1, start="GET /echo HTTP/1.0", proxy_pass=ACCEPTED),
    row("HTTP/0.9 in words", NEEDS_HTTP_1_1, start="GET /echo HTTP/0.9", nginx=NGINX_400),
    row("HTTP/1.2", ACCEPTED, start="GET /echo HTTP/1.2"),
    row("HTTP/2.0", NEEDS_HTTP_1_1, start="GET /echo HTTP/2.0", nginx=NGINX_505),
    row("no HTTP version that there is", NEEDS_HTTP_1_1, start="GET /echo HTTP/1.1x", nginx=NGINX_400),
]

HOSTS = [
    row("host with a port", ACCEPTED, {"Host": "server.example:8080"}),
    row("host that is an IPv6 address", ACCEPTED, {"Host": "[::1]:8080"}),
    row("host with an underscore", ACCEPTED, {"Host": "my_service"}),
    row("no host", NO_HOST, {"Host": None}, nginx=NGINX_400),
    row("empty host", NO_HOST, {"Host": ""}, nginx=NGINX_400),
    row("two hosts", NO_HOST, {"Host": ["server.example", "other.example"]}, nginx=NGINX_400),
    row("the same host twice", NO_HOST, {"Host": ["server.example"] * 2}, nginx=NGINX_400),
    row("host with a space in it", NO_HOST, {"Host": "server.example other"}, nginx=NGINX_400),
    row("host with a path", NO_HOST, {"Host": "server.example/path"}, nginx=NGINX_400),
    row("non-ascii host", NO_HOST, {"Host": "s\xe9rver.example"}, nginx=None),
]

UPGRADES = [
    row("upgrade in mixed case", ACCEPTED, {"Upgrade": "WebSocket"}),
    row("upgrade in upper case", ACCEPTED, {"Upgrade": "WEBSOCKET"}),
    row("upgrade in white space", ACCEPTED, {"Upgrade": "\t  websocket \t "}),
    row("upgrade behind no space", ACCEPTED, {"Upgrade": None}, lines=["Upgrade:websocket"]),
    row("upgrade among empty values", ACCEPTED, {"Upgrade": ", ,websocket, ,"}),
    row("no upgrade", APPLICATION, {"Upgrade": None}),
    row("empty upgrade", APPLICATION, {"Upgrade": ""}),
    row("upgrade to something else", APPLICATION, {"Upgrade": "h2c"}),
    row("upgrade to a version of websocket", APPLICATION, {"Upgrade": "websocket/13"}),
    row("upgrade to something that begins alike", APPLICATION, {"Upgrade": "websockets"}),
    row("upgrade to either of two", malformed("invalid Upgrade header"), {"Upgrade": "websocket, h2c"}),
    row("upgrade to either of two, the other first", malformed("invalid Upgrade header"), {"Upgrade": "h2c,websocket"}),
    row(
        "two upgrades",
        malformed("invalid Upgrade header: websocket, websocket"),
        {"Upgrade": ["websocket", "websocket"]},
        nginx=None,
    ),
    row("non-ascii upgrade", malformed("websocket, \\xe9"), {"Upgrade": "websocket, \xe9"}),
    row("quoted upgrade", malformed("invalid Upgrade header"), {"Upgrade": '"websocket"'}),
    row("upgrade and a word", malformed("invalid Upgrade header"), {"Upgrade": "websocket please"}),
    row("upgrade with a null byte in it", APPLICATION, {"Upgrade": "web\0socket"}, nginx=NGINX_400),
    # What stands before the colon is a name to uWSGI, which nothing looks for. RFC 9112 §5.1 has it refused.
    row("space before the colon", APPLICATION, {"Upgrade": None}, lines=["Upgrade : websocket"], nginx=NGINX_400),
]

CONNECTIONS = [
    row("connection of Firefox", ACCEPTED, {"Connection": "keep-alive, Upgrade"}),
    row("connection in lower case", ACCEPTED, {"Connection": "upgrade"}),
    row("connection in upper case", ACCEPTED, {"Connection": "UPGRADE"}),
    row("connection in white space", ACCEPTED, {"Connection": "\tkeep-alive\t,\tUpgrade\t"}),
    row("connection without white space", ACCEPTED, {"Connection": None}, lines=["Connection:keep-alive,Upgrade"]),
    row("connection among empty values", ACCEPTED, {"Connection": ",, Upgrade ,,"}),
    row("two connections", ACCEPTED, {"Connection": ["keep-alive", "Upgrade"]}),
    row("the same connection twice", ACCEPTED, {"Connection": ["Upgrade", "Upgrade"]}),
    row("no connection", malformed("missing Connection header"), {"Connection": None}, proxy_pass=ACCEPTED),
    row("empty connection", malformed("Connection"), {"Connection": ""}, proxy_pass=ACCEPTED),
    row("connection of commas", malformed("Connection"), {"Connection": ", ,"}, proxy_pass=ACCEPTED),
    row("another connection", malformed("Connection"), {"Connection": "keep-alive"}, proxy_pass=ACCEPTED),
    row("connection that is closed", malformed("Connection"), {"Connection": "close"}, proxy_pass=ACCEPTED),
    row("connection of two words", malformed("Connection"), {"Connection": "keep-alive Upgrade"}, proxy_pass=ACCEPTED),
    row("quoted connection", malformed("Connection"), {"Connection": '"Upgrade"'}, proxy_pass=ACCEPTED),
    row("non-ascii connection", malformed("\\xdcpgrade"), {"Connection": "\xdcpgrade, Upgrade"}, proxy_pass=ACCEPTED),
    # RFC 9112 §5.2 has such folding refused.
    row(
        "folded connection",
        malformed("Connection"),
        {"Connection": None},
        lines=["Connection: keep-alive,", " Upgrade"],
        nginx=NGINX_400,
    ),
]

KEYS = [
    row("key in white space", ACCEPTED, {"Sec-WebSocket-Key": f"  \t{KEY}\t  "}),
    row("key of zeros", ACCEPTED, {"Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA=="}),
    row("key whose last bits are not zero", ACCEPTED, {"Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAB=="}),
    row("no key", malformed("missing Sec-WebSocket-Key"), {"Sec-WebSocket-Key": None}),
    row("empty key", malformed("Sec-WebSocket-Key"), {"Sec-WebSocket-Key": ""}),
    row("key of white space", malformed("Sec-WebSocket-Key"), {"Sec-WebSocket-Key": " \t "}),
    row("key of 15 bytes", malformed("Sec-WebSocket-Key"), {"Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAA"}),
    row("key of 17 bytes", malformed("Sec-WebSocket-Key"), {"Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAAA="}),
    row("key without padding", malformed("Sec-WebSocket-Key"), {"Sec-WebSocket-Key": KEY.rstrip("=")}),
    row("key in base64url", malformed("Sec-WebSocket-Key"), {"Sec-WebSocket-Key": "__________________--_w=="}),
    row("key that is not base64", malformed("Sec-WebSocket-Key"), {"Sec-WebSocket-Key": "not base64 at all!"}),
    row("key with a space in it", malformed("Sec-WebSocket-Key"), {"Sec-WebSocket-Key": f"{KEY[:8]} {KEY[8:]}"}),
    row("quoted key", malformed("Sec-WebSocket-Key"), {"Sec-WebSocket-Key": f'"{KEY}"'}),
    row("non-ascii key", malformed("\\xe9"), {"Sec-WebSocket-Key": f"\xe9{KEY[1:]}"}),
    row("no-break space behind the key", malformed("\\xa0"), {"Sec-WebSocket-Key": f"{KEY}\xa0"}),
    row("oversized key", malformed("AAA..."), {"Sec-WebSocket-Key": "A" * 3000}),
    row("two keys", malformed("Sec-WebSocket-Key"), {"Sec-WebSocket-Key": ["x", "y"]}),
    row("the same key twice", malformed("Sec-WebSocket-Key"), {"Sec-WebSocket-Key": [KEY, KEY]}, uwsgi_pass=None),
    # uWSGI takes an underscore for a hyphen; nginx drops such headers (underscores_in_headers).
    row(
        "key with underscores in its name",
        ACCEPTED,
        {"Sec-WebSocket-Key": None},
        lines=[f"Sec_WebSocket_Key: {KEY}"],
        nginx=malformed("missing Sec-WebSocket-Key"),
    ),
    row(
        "a second key with underscores in its name",
        malformed("Sec-WebSocket-Key"),
        lines=["Sec_WebSocket_Key: x"],
        nginx=ACCEPTED,
    ),
]

VERSIONS = [
    row("version in white space", ACCEPTED, {"Sec-WebSocket-Version": "  13\t"}),
    row("no version", malformed("missing Sec-WebSocket-Version"), {"Sec-WebSocket-Version": None}),
    row("empty version", other_version(""), {"Sec-WebSocket-Version": ""}),
    row("version of the draft hybi-10", other_version("8"), {"Sec-WebSocket-Version": "8"}),
    row("later version", other_version("14"), {"Sec-WebSocket-Version": "14"}),
    row("list of versions", other_version("13, 8"), {"Sec-WebSocket-Version": "13, 8"}),
    row("two versions", other_version("8, 7"), {"Sec-WebSocket-Version": ["8", "7"]}, uwsgi_pass=Reply(426)),
    row(
        "the same version twice",
        other_version("13, 13"),
        {"Sec-WebSocket-Version": ["13", "13"]},
        uwsgi_pass=None,
    ),
    row("version with a zero before it", other_version("013"), {"Sec-WebSocket-Version": "013"}),
    row("version with a sign", other_version("+13"), {"Sec-WebSocket-Version": "+13"}),
    row("version in words", other_version("thirteen"), {"Sec-WebSocket-Version": "thirteen"}),
    row("no-break space behind the version", other_version("13\\xa0"), {"Sec-WebSocket-Version": "13\xa0"}),
    row("non-ascii version", other_version("\\xb9\\xb3"), {"Sec-WebSocket-Version": "\xb9\xb3"}),
    row("oversized version", Reply(426, "999..."), {"Sec-WebSocket-Version": "9" * 3000}),
]

CASES = [
    row(f"all headers in {name}", ACCEPTED, dict.fromkeys(STANDARD), lines=lines)
    for name, lines in [
        ("upper case", [f"{header.upper()}: {value}" for header, value in STANDARD.items()]),
        ("lower case", [f"{header.lower()}: {value}" for header, value in STANDARD.items()]),
    ]
]

SUBPROTOCOLS = [
    row(name, reply, {"Sec-WebSocket-Protocol": offers}, target="/subprotocols")
    for name, reply, offers in [
        ("the subprotocol", subprotocol("chat.v1"), "chat.v1"),
        ("both subprotocols", subprotocol("chat.v2"), "chat.v1, chat.v2"),
        ("subprotocols without white space", subprotocol("chat.v2"), "other,chat.v1,chat.v2"),
        ("subprotocols in white space", subprotocol("chat.v1"), "\tother ,\t chat.v1\t"),
        ("subprotocols among empty values", subprotocol("chat.v1"), ",, other, , chat.v1,,"),
        ("hundreds of subprotocols", subprotocol("chat.v1"), [", ".join(f"p{n}" for n in range(400)) + ", chat.v1"]),
        ("the same subprotocol a hundred times", subprotocol("chat.v1"), ", ".join(["chat.v1"] * 100)),
        ("several subprotocol lines", subprotocol("chat.v1"), ["other", "another", "chat.v1"]),
        ("thirty subprotocol lines", subprotocol("chat.v1"), [*(f"p{n}" for n in range(30)), "chat.v1"]),
        ("another subprotocol", ACCEPTED, "other"),
        ("subprotocol in another case", ACCEPTED, "Chat.V1"),
        ("no subprotocol", ACCEPTED, None),
        ("empty subprotocol", malformed("Sec-WebSocket-Protocol"), ""),
        ("subprotocol of commas", malformed("Sec-WebSocket-Protocol"), ", ,"),
        ("subprotocol with a space in it", malformed("Sec-WebSocket-Protocol"), "chat.v1 chat.v2"),
        ("quoted subprotocol", malformed("Sec-WebSocket-Protocol"), '"chat.v1"'),
        ("subprotocol with a separator", malformed("Sec-WebSocket-Protocol"), "chat.v1, http://example.com"),
        ("subprotocols with a semicolon", malformed("Sec-WebSocket-Protocol"), "chat.v1; chat.v2"),
        ("non-ascii subprotocol", malformed("ch\\xe4t"), "chat.v1, ch\xe4t"),
    ]
]

EXTENSIONS = [
    row(name, reply, {"Sec-WebSocket-Extensions": offers})
    for name, reply, offers in [
        ("permessage-deflate", deflate(), "permessage-deflate"),
        (
            "permessage-deflate of Chromium and Firefox",
            deflate("; server_max_window_bits=12; client_max_window_bits=12"),
            "permessage-deflate; client_max_window_bits",
        ),
        (
            "all parameters",
            deflate(
                "; server_no_context_takeover; client_no_context_takeover"
                "; server_max_window_bits=10; client_max_window_bits=9"
            ),
            (
                "permessage-deflate;server_no_context_takeover;client_no_context_takeover"
                ";server_max_window_bits=10;client_max_window_bits=9"
            ),
        ),
        ("quoted parameter", deflate("; server_max_window_bits=10"), 'permessage-deflate; server_max_window_bits="10"'),
        (
            "fallback where the first offer cannot be met",
            deflate(),
            "permessage-deflate; server_max_window_bits=8, permessage-deflate",
        ),
        ("unknown parameter", ACCEPTED, "permessage-deflate; level=9"),
        ("parameter twice", ACCEPTED, "permessage-deflate; server_max_window_bits=9; server_max_window_bits=9"),
        ("parameter out of range", ACCEPTED, "permessage-deflate; server_max_window_bits=16"),
        ("parameter with a zero before it", ACCEPTED, "permessage-deflate; server_max_window_bits=09"),
        ("parameter with a value that it does not take", ACCEPTED, "permessage-deflate; server_no_context_takeover=1"),
        ("other extensions", ACCEPTED, "x-webkit-deflate-frame, permessage-bzip2; a=1; b"),
        ("hundreds of extensions", deflate(), ", ".join([f"x-{n}" for n in range(300)] + ["permessage-deflate"])),
        ("permessage-deflate a hundred times", deflate(), ", ".join(["permessage-deflate"] * 100)),
        ("several extension lines", deflate(), ["x-one; a", "x-two", "permessage-deflate"]),
        ("no extension", ACCEPTED, None),
        ("extensions among empty values", deflate(), ", , permessage-deflate,,"),
        ("empty extension", malformed("Sec-WebSocket-Extensions"), ""),
        ("extension of commas", malformed("Sec-WebSocket-Extensions"), ",,"),
        ("extension with an empty parameter", malformed("Sec-WebSocket-Extensions"), "permessage-deflate;"),
        ("extension with an empty value", malformed("Sec-WebSocket-Extensions"), "permessage-deflate; a="),
        ("extension with a space in it", malformed("Sec-WebSocket-Extensions"), "permessage deflate"),
        ("extension with an open quote", malformed("Sec-WebSocket-Extensions"), 'permessage-deflate; a="10'),
        ("quoted value that is no token", malformed("Sec-WebSocket-Extensions"), 'permessage-deflate; a="1 0"'),
        ("malformed extension behind a good one", malformed("Extensions"), "permessage-deflate, x=1"),
        ("non-ascii extension", malformed("d\\xe9flate"), "permessage-d\xe9flate"),
    ]
]

NO_CHUNKS = b"0\r\n\r\n"

# A body on an upgrade is how requests are smuggled: two servers on the way disagree over where it ends.
BODIES = [
    row("length 0", ACCEPTED, {"Content-Length": "0"}),
    row("empty length", ACCEPTED, {"Content-Length": ""}, nginx=NGINX_400),
    row("length 5 and a body", NO_BODY, {"Content-Length": "5"}, body=b"hello"),
    row("length of zeros", NO_BODY, {"Content-Length": "00"}, proxy_pass=ACCEPTED),
    row("length with a sign", NO_BODY, {"Content-Length": "+0"}, nginx=NGINX_400),
    row("negative length", NO_BODY, {"Content-Length": "-1"}, nginx=NGINX_400),
    row("hexadecimal length", NO_BODY, {"Content-Length": "0x0"}, nginx=NGINX_400),
    row("two lengths", NO_BODY, {"Content-Length": ["0", "5"]}, nginx=NGINX_400),
    row("list of lengths", NO_BODY, {"Content-Length": "0, 0"}, nginx=NGINX_400),
    row("length with underscores in its name", NO_BODY, lines=["Content_Length: 5"], nginx=ACCEPTED),
    # nginx reads the chunks itself. With proxy_pass it then says that there are 0 bytes.
    row("chunks", NO_BODY, {"Transfer-Encoding": "chunked"}, body=NO_CHUNKS, proxy_pass=ACCEPTED),
    row(
        "chunks and a length",
        NO_BODY,
        {"Transfer-Encoding": "chunked", "Content-Length": "0"},
        body=NO_CHUNKS,
        nginx=NGINX_400,
    ),
    row("chunks in another case", NO_BODY, {"Transfer-Encoding": "cHuNkEd"}, body=NO_CHUNKS, proxy_pass=ACCEPTED),
    row("chunks with a tab before them", NO_BODY, {"Transfer-Encoding": "\tchunked"}, body=NO_CHUNKS, nginx=NGINX_501),
    row("another transfer encoding", NO_BODY, {"Transfer-Encoding": "identity"}, nginx=NGINX_501),
    row("empty transfer encoding", NO_BODY, {"Transfer-Encoding": ""}, nginx=NGINX_501),
    row("transfer encoding with underscores in its name", NO_BODY, lines=["Transfer_Encoding: x"], nginx=ACCEPTED),
    row("expectation of a body", ACCEPTED, {"Expect": "100-continue"}, nginx=None),
]

# The whole head must fit in uWSGI's --buffer-size, 4,096 bytes if it is not set.
SIZES = [
    row("cookie of 3,000 bytes", ACCEPTED, {"Cookie": "c" * 3000}),
    row("cookie of 5,000 bytes", UWSGI_CLOSES, {"Cookie": "c" * 5000}, nginx=NGINX_502),
    row("cookie of 40,000 bytes", UWSGI_CLOSES, {"Cookie": "c" * 40000}, nginx=NGINX_400),
    row("oversized host", UWSGI_CLOSES, {"Host": "h" * 5000}, nginx=NGINX_502),
    row("oversized upgrade", UWSGI_CLOSES, {"Upgrade": "websocket," * 500}, nginx=NGINX_502),
    row("oversized connection", UWSGI_CLOSES, {"Connection": "Upgrade," * 600}, nginx=NGINX_502, proxy_pass=ACCEPTED),
    row("too many subprotocols", UWSGI_CLOSES, {"Sec-WebSocket-Protocol": "p, " * 2000 + "p"}, nginx=NGINX_502),
    row("too many extensions", UWSGI_CLOSES, {"Sec-WebSocket-Extensions": "x, " * 2000 + "x"}, nginx=NGINX_502),
    row("too long a path", UWSGI_CLOSES, target="/" + "p" * 5000, nginx=NGINX_502),
    row("forty unknown headers", ACCEPTED, {f"X-Unknown-{n}": "x" for n in range(40)}),
    row("header without a colon", UWSGI_CLOSES, lines=["Nonsense"], nginx=None),
]

HANDSHAKES = [
    *REQUEST_LINES,
    *HOSTS,
    *UPGRADES,
    *CONNECTIONS,
    *KEYS,
    *VERSIONS,
    *CASES,
    *SUBPROTOCOLS,
    *EXTENSIONS,
    *BODIES,
    *SIZES,
]
