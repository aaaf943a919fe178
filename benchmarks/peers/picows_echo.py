"""picows on uvloop: an echo, a broadcast and a plain page. It hands payloads over as bytes and does not check UTF-8."""

import os
import sys

import uvloop
from picows import (
    WSFrame,
    WSListener,
    WSMsgType,
    WSTransport,
    WSUpgradeRequest,
    WSUpgradeResponse,
    WSUpgradeResponseWithListener,
    ws_create_server,
)

CLOSE = WSMsgType.CLOSE


class Echo(WSListener):
    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == CLOSE:
            transport.send_close(frame.get_close_code(), frame.get_close_message())
            transport.disconnect()
        else:
            transport.send(frame.msg_type, frame.get_payload_as_memoryview(), frame.fin)


class Broadcast(WSListener):
    everyone: set[WSTransport] = set()  # noqa: RUF012 - shared by all connections

    def on_ws_connected(self, transport: WSTransport) -> None:
        self.everyone.add(transport)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == CLOSE:
            transport.send_close(frame.get_close_code(), frame.get_close_message())
            transport.disconnect()
        else:
            message = frame.get_payload_as_bytes()
            for other in self.everyone:
                other.send(frame.msg_type, message)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self.everyone.discard(transport)


def listener(request: WSUpgradeRequest) -> WSListener | WSUpgradeResponseWithListener:
    if request.path == b"/echo":
        return Echo()
    if request.path == b"/broadcast":
        return Broadcast()
    return WSUpgradeResponseWithListener(WSUpgradeResponse.create_ok_response(b"ok\n"), None)


async def main() -> None:
    limit = int(os.environ["MAX_MESSAGE_SIZE"])
    server = await ws_create_server(listener, "127.0.0.1", int(sys.argv[1]), max_frame_size=limit, backlog=1024)
    await server.serve_forever()


uvloop.run(main())
