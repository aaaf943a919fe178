"""Django with a WebSocket: a page that sends what you type, and gets it back.

    pip install uwasp-core uwasp-gevent pyuwsgi django
    uwsgi --http-socket 127.0.0.1:8000 --master --die-on-term --gevent 100 --binary-path "$(command -v python3)" \
        --wsgi-file examples/django_echo.py

With threads: `pip install uwasp-threads`, set UWASP_HANDLER=threads, and give uWSGI `--threads 4` for `--gevent 100`.

In a project of yours, only the last lines are new; they go into its wsgi.py. The rest makes a Django of one file.
"""

from __future__ import annotations

import os
from pathlib import Path

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponse
from django.urls import path

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


def page(request: HttpRequest) -> HttpResponse:
    return HttpResponse(PAGE)


def script(request: HttpRequest) -> HttpResponse:
    return HttpResponse(Path(__file__).with_name("uwasp.js").read_bytes(), "text/javascript")


urlpatterns = [path("", page), path("uwasp.js", script)]
settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["127.0.0.1", "localhost"])


class Echo(Server):
    def on_message(self, message: str | bytes) -> None:
        self.ws.send(message)


handler = os.environ.get("UWASP_HANDLER", "gevent")
application = WebSocketMiddleware(get_wsgi_application(), handler_class=handler, servers=[("/echo", Echo)])
