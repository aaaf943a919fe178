from setuptools import Extension, setup

sources = ["src/uwasp_speedups/_speedups.c"]

setup(ext_modules=[Extension("uwasp_speedups._speedups", sources, extra_compile_args=["-O3", "-Wall"])])
