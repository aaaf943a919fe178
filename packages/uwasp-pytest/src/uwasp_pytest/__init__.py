"""uWASP in pytest: the fixture `uwasp_server`, a real uWSGI for a test; and what is in it, for fixtures of yours."""

from __future__ import annotations

from uwasp_pytest.client import Client
from uwasp_pytest.processes import Process, Uwsgi
from uwasp_pytest.server import serve

__all__ = ["Client", "Process", "Uwsgi", "serve"]

__version__ = "0.1.0"
