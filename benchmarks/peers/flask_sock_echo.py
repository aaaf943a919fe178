"""flask-sock, for gunicorn: an echo and a plain page."""

import os

from flask import Flask
from flask_sock import Sock

application = Flask(__name__)
application.config["SOCK_SERVER_OPTIONS"] = {"max_message_size": int(os.environ["MAX_MESSAGE_SIZE"])}
sock = Sock(application)


@sock.route("/echo")
def echo(ws):
    while True:
        ws.send(ws.receive())


@application.route("/")
def page():
    return "ok\n"
