"""The CPythons of this machine. A wheel is compiled with the headers of one, and tested on it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

__all__ = ["find", "version"]

ASK = """
import json, pathlib, sys, sysconfig
headers = pathlib.Path(sysconfig.get_path("include"), "Python.h").exists()
fits = sys.implementation.name == "cpython" and not sysconfig.get_config_var("Py_GIL_DISABLED")
print(json.dumps([fits, headers, sys.executable]))
"""


def version() -> str:
    """That of the CPython which runs this, such as "3.11"."""
    return "{}.{}".format(*sys.version_info)


def find(wanted: str) -> Path | str:
    """The program of a CPython, such as "3.12", that can compile; or why there is none."""
    command = [sys.executable if wanted == version() else f"python{wanted}", "-c", ASK]
    try:
        run = subprocess.run(command, env=_with_all_of_pyenv(), capture_output=True, text=True)
    except FileNotFoundError:
        return f"CPython {wanted} is not on this machine"
    if run.returncode:  # pyenv has a program of that name, and none of these versions
        return f"CPython {wanted} is not on this machine"
    fits, has_headers, program = json.loads(run.stdout)
    if not fits:
        return f"python{wanted} on this machine is not a CPython with a GIL"
    if not has_headers:
        return f"the headers of CPython {wanted} are not on this machine"
    return Path(program)


def _with_all_of_pyenv() -> dict[str, str]:
    """The environment in which pyenv, if it is here, runs any of the versions that it has."""
    if shutil.which("pyenv") is None:
        return dict(os.environ)
    listed = subprocess.run(["pyenv", "versions", "--bare"], capture_output=True, text=True, check=True)
    return {**os.environ, "PYENV_VERSION": ":".join(listed.stdout.split())}
