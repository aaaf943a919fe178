"""Flask with a WebSocket: a page that sends what you type, and gets it back.

    pip install uwasp-core uwasp-gevent pyuwsgi flask
    uwsgi --http-socket 127.0.0.1:8000 --master --die-on-term --gevent 100 --binary-path "$(command -v python3)" \
        --wsgi-file examples/flask_echo.py

With threads: `pip install uwasp-threads`, set UWASP_HANDLER=threads, and give uWSGI `--threads 4` for `--gevent 100`.
"""

from __future__ import annotations

import os
from pathlib import Path

from flask import Flask, Response, send_file

from uwasp import Server, WebSocketMiddleware

PAGE = """<!doctype html>
<meta name="viewport" content="width=device-width"><title>Echo</title>
<form><input name="text" autocomplete="off" autofocus> <button>Send</button></form>
<pre></pre>
<script type="module">
  import { Socket } from "./uwasp.js";
  const socket = new Socket("echo");
  socket.on("message", ({data}) => document.querySelector("pre").append(data, "\\n"));
  document.forms[0].onsubmit = () => { socket.send(document.forms[0].text.value); return false; };
</script>
"""

app = Flask(__name__)


@app.get("/")
def page() -> str:
    return PAGE


@app.get("/uwasp.js")
def script() -> Response:
    return send_file(Path(__file__).with_name("uwasp.js"), "text/javascript")


class Echo(Server):
    def on_message(self, message: str | bytes) -> None:
        self.ws.send(message)


handler = os.environ.get("UWASP_HANDLER", "gevent")
application = WebSocketMiddleware(app, handler_class=handler, servers=[("/echo", Echo)])
