"""Tells where the packages come from that run here; with an argument, in a worker of a uWSGI that it starts."""

from __future__ import annotations

import importlib
import os
import sys
import tempfile
from pathlib import Path


def tell() -> None:
    import uwasp

    sources = Path(__file__).parents[2].glob("packages/*/src/*/__init__.py")
    for name in {source.parent.name for source in sources} - {"uwasp_speedups"}:
        package = importlib.import_module(name)
        os.write(1, f"runs {name} {package.__file__}\n".encode())
    os.write(1, f"runs speedups {uwasp.speedups.in_use}\n".encode())


def application(environ, start_response):
    """Never asked: the worker tells when it loads this."""


if __name__ == "__main__" and len(sys.argv) > 1:
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from processes import Uwsgi

    with tempfile.TemporaryDirectory() as folder:
        uwsgi = Uwsgi(Path(__file__), Path(folder), "--gevent", "2", "--lazy-apps")
        uwsgi.stop()
        print(uwsgi.output)
else:
    tell()
