"""Compiles the C where it can be compiled. Where it cannot, the package installs without, and uwasp-core says so.

`UWASP_SPEEDUPS=1` in the environment has a build without the C fail, with the compiler's words.
"""

import os
import sys
import sysconfig

from setuptools import Extension, setup

if sysconfig.get_config_var("Py_GIL_DISABLED"):
    sys.exit(
        "uwasp-speedups relies on the GIL, and this CPython is free-threaded: use an ordinary one "
        "(uWASP without its C has not been tried on a free-threaded CPython either)"
    )

extension = Extension(
    "uwasp_speedups._speedups",
    ["src/uwasp_speedups/_speedups.c"],
    extra_compile_args=["-O3", "-Wall"],
    optional=os.environ.get("UWASP_SPEEDUPS") != "1",
)
setup(ext_modules=[extension])
