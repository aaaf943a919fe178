"""socketify (uWebSockets from Python): an echo, a broadcast and a plain page."""

import os
import sys

from socketify import App, AppListenOptions, CompressOptions

LIMIT = int(os.environ["MAX_MESSAGE_SIZE"])


def echo(ws, message, opcode):
    ws.send(message, opcode)


def join(ws):
    ws.subscribe("everyone")


def to_everyone(ws, message, opcode):
    app.publish("everyone", message, opcode)


# By default it takes 16 KiB, and drops what a client has not read within 64 KiB.
options = {"compression": CompressOptions.DISABLED, "max_payload_length": LIMIT, "max_backpressure": 16 * LIMIT}
app = App()
app.ws("/echo", {**options, "message": echo})
app.ws("/broadcast", {**options, "open": join, "message": to_everyone})
app.get("/", lambda response, request: response.end("ok\n"))
app.listen(AppListenOptions(port=int(sys.argv[1]), host="127.0.0.1"), lambda config: None)
app.run()
