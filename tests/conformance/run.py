"""The Autobahn testsuite against uWASP on real uWSGI: `python tests/conformance/run.py`, or `hatch run conformance`.

Exits with 0 if every case is OK or INFORMATIONAL, in what it received and in how the connection was closed; with 1 if
one is not, or is missing, or the server's log has complaints; with 2 for wrong arguments; with 3 where there is
neither a `wstest` nor a Python 2.7 to build it with; with 4 where the suite or uWSGI could not be run.
"""

from __future__ import annotations

import argparse
import datetime
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # for `processes`

import processes
from cases import Run, RunFailed, describe, run_cases, table
from wstest import BuildFailed, NoPython27, UnusableWstest, Wstest, find_or_build

ROOT = Path(__file__).parents[2]
NOT_PASSED, NO_PYTHON27, NOT_RUN = 1, 3, 4
EVERY_CASE = "*"
HANDLERS = tuple(sorted(processes.LOOP_OPTIONS))


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parse(arguments)
    handlers = HANDLERS if options.handler == "all" else (options.handler,)
    try:
        wstest = find_or_build()
        _say(f"autobahntestsuite {wstest.version}: {wstest.program}")
        folder = options.folder or Path(tempfile.mkdtemp(prefix="uwasp-conformance-"))
        runs = [run_cases(wstest, name, options.cases, folder.resolve() / name, _say) for name in handlers]
    except NoPython27 as error:
        print(error, file=sys.stderr)
        return NO_PYTHON27
    except (BuildFailed, UnusableWstest) as error:
        print(error, file=sys.stderr)
        return NOT_RUN
    except RunFailed as error:
        print(f"{error}\nlogs: {folder}", file=sys.stderr)
        return NOT_RUN
    print(f"\n{table(runs)}\n")
    passed = all(run.passed for run in runs)
    if options.report is not None:
        options.report.parent.mkdir(parents=True, exist_ok=True)
        options.report.write_text(_report(runs, wstest, options.report))
        print(f"written: {options.report}")
    if not passed:
        print(describe(runs))
    if options.folder is None and passed:
        shutil.rmtree(folder)
    else:
        print(f"logs and the suite's own reports: {folder}")
    return 0 if passed else NOT_PASSED


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--handler", choices=(*HANDLERS, "all"), default="all", help="default: all")
    parser.add_argument(
        "--cases",
        type=lambda value: tuple(pattern for pattern in value.split(",") if pattern),
        default=(EVERY_CASE,),
        metavar="1.*,7.1.5",
        help="patterns of the suite's case numbers, separated by commas (default: every case)",
    )
    parser.add_argument(
        "--report", type=Path, metavar="FILE", help="write the result as Markdown; only for all cases on all handlers"
    )
    parser.add_argument(
        "--folder", type=Path, help="for logs and the suite's own reports (default: temporary, kept if a case fails)"
    )
    options = parser.parse_args(arguments)
    if not options.cases:
        parser.error("--cases is empty")
    if options.report is not None and (options.cases != (EVERY_CASE,) or options.handler != "all"):
        parser.error("--report is for the whole suite on all handlers: leave out --cases and --handler")
    if shutil.which("uwsgi", path=os.pathsep.join([str(Path(sys.executable).parent), *os.get_exec_path()])) is None:
        parser.error("there is no uwsgi in this environment: install pyuwsgi, or uwsgi")
    return options


def _say(line: str) -> None:
    print(line, flush=True)


def _report(runs: Sequence[Run], wstest: Wstest, path: Path) -> str:
    """The page for the documentation."""
    today = datetime.datetime.now(datetime.timezone.utc).date()
    versions = {"uWASP": _version("uwasp-core"), **runs[0].versions, "websockets": _version("websockets")}
    versions |= {"gevent": _version("gevent"), "autobahntestsuite": wstest.version}
    handlers = " and ".join(f"`{run.handler}`" for run in runs)
    counts = ", ".join(
        f"{sum(case.passed for case in run.cases)} of {len(run.cases) + len(run.missing)} on `{run.handler}`"
        for run in runs
    )
    faults = describe(runs)
    informational = sorted({case.id for run in runs for case in run.cases if case.behavior == "INFORMATIONAL"})
    return f"""\
# Conformance

The [Autobahn testsuite](https://github.com/crossbario/autobahn-testsuite) checks a WebSocket implementation against
RFC 6455 and RFC 7692, case by case: what is received, and how the connection is closed. It is run against an echo on
real uWSGI, with each handler: {handlers}. This page is written by the run itself.

OK or INFORMATIONAL, in what was received and in how the connection was closed: {counts}.
INFORMATIONAL are cases for which the RFC leaves the behaviour open ({", ".join(informational) or "none"}).

| | |
|---|---|
| date | {today} |
{chr(10).join(f"| {name} | {value} |" for name, value in versions.items())}
| command | `{_command(path)}` |

## By section and handler

*close* is the verdict on how the connection was closed; *other* counts closes that are neither OK nor INFORMATIONAL.
The last column is the time that the cases took, in seconds; the suite's share of it is included.

{table(runs)}

## Cases that are not OK

{f"```text{chr(10)}{faults}{chr(10)}```" if faults else "None."}
"""


def _command(path: Path) -> str:
    shown = path.resolve()
    if shown.is_relative_to(ROOT):
        shown = shown.relative_to(ROOT)
    return f"python tests/conformance/run.py --report {shown.as_posix()}"


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "unknown"


if __name__ == "__main__":
    sys.exit(main())
