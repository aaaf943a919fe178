"""The application of the tests of what is gevent's own."""

from __future__ import annotations

import logging
import sys

import gevent

from uwasp import GeventHandler, Server, WebSocketMiddleware

logging.basicConfig(level="INFO", format="%(name)s %(levelname)s %(message)s")
logger = logging.getLogger("application")


class Spawning(Server):
    def on_message(self, message):
        if message == "spawn":
            GeventHandler.spawn(self.later, "in a greenlet")
        elif message == "spawn from a thread":
            gevent.get_hub().threadpool.spawn(GeventHandler.spawn, self.later, "from a thread")
        elif message == "exit":
            GeventHandler.spawn(sys.exit, "exit")
        elif message == "kill":
            gevent.spawn(gevent.getcurrent().kill)
            gevent.sleep(10)
        else:
            self.ws.send(message)

    def later(self, text):
        gevent.sleep(0.01)
        self.ws.send(f"{text} of this hub: {gevent.getcurrent().parent is gevent.get_hub()}")

    def on_close(self):
        logger.info("closed with %s", self.ws.close_code)


application = WebSocketMiddleware(print, "gevent", [("/spawning", Spawning)])
