"""Flask with a WebSocket: a page that sends what you type, and gets it back.

    pip install uwasp-core uwasp-gevent pyuwsgi flask
    uwsgi --http-socket 127.0.0.1:8000 --master --die-on-term --gevent 100 --binary-path "$(command -v python3)" \
        --wsgi-file examples/flask_echo.py

With threads: `pip install uwasp-threads`, set UWASP_HANDLER=threads, and give uWSGI `--threads 4` for `--gevent 100`.
"""

from __future__ import annotations

import os

from flask import Flask

from uwasp import Server, WebSocketMiddleware

PAGE = """<!doctype html>
<meta name="viewport" content="width=device-width"><title>Echo</title>
<form><input name="text" autocomplete="off" autofocus> <button>Send</button></form>
<pre></pre>
<script>
  const socket = new WebSocket(location.href.replace("http", "ws") + "echo");
  socket.onmessage = ({data}) => document.querySelector("pre").append(data, "\\n");
  document.forms[0].onsubmit = () => { socket.send(document.forms[0].text.value); return false; };
</script>
"""

app = Flask(__name__)


@app.get("/")
def page() -> str:
    return PAGE


class Echo(Server):
    def on_message(self, message: str | bytes) -> None:
        self.ws.send(message)


handler = os.environ.get("UWASP_HANDLER", "gevent")
application = WebSocketMiddleware(app, handler_class=handler, servers=[("/echo", Echo)])
