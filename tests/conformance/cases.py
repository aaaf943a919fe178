"""Runs cases of the Autobahn testsuite against an echo on real uWSGI, and says what came out."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from processes import LOOP_OPTIONS, Process, Uwsgi, running
from wstest import Wstest

__all__ = ["Case", "Run", "RunFailed", "describe", "run_cases", "table"]

ECHO = Path(__file__).parent / "echo.py"

# The suite's own titles of its sections, in our words.
SECTIONS = {
    "1": "Framing",
    "2": "Pings and pongs",
    "3": "Reserved bits",
    "4": "Opcodes",
    "5": "Fragmentation",
    "6": "UTF-8",
    "7": "Closing",
    "9": "Limits and performance",
    "10": "Automatic fragmentation",
    "12": "Compression, payloads",
    "13": "Compression, parameters",
}
PASSED = frozenset({"OK", "INFORMATIONAL"})
BEHAVIORS = ("OK", "NON-STRICT", "INFORMATIONAL", "FAILED", "UNIMPLEMENTED")
CLOSES = ("OK", "INFORMATIONAL")  # the other verdicts on a close are WRONG CODE, UNCLEAN and two kinds of FAILED
WORD_COLUMNS = 3  # of the table; the others hold numbers
CLOSE_COLUMNS = ("close OK", "INFORMATIONAL", "other")

# Longer than any case takes: the suite itself ends one after 480 s.
SILENCE_TIMEOUT = 600.0
# What the server must not have said: a worker that died, an error or a warning.
COMPLAINT = re.compile(r"^(?:DAMN|Traceback|!!!|\S+ (?:WARNING|ERROR|CRITICAL) ).*", re.MULTILINE)


class RunFailed(Exception):
    """The suite did not do what it was asked to, so that there is no result."""


@dataclass(frozen=True)
class Case:
    """One case on one handler; `particulars` is all that the suite reports of it."""

    id: str
    handler: str
    behavior: str
    close: str
    seconds: float
    particulars: dict[str, Any] = field(repr=False)

    @property
    def section(self) -> str:
        return self.id.partition(".")[0]

    @property
    def passed(self) -> bool:
        return self.behavior in PASSED and self.close in PASSED


@dataclass(frozen=True)
class Run:
    """All cases that were run on one handler.

    Attributes:
        missing: the ids of cases that were to run and of which the suite reports nothing.
        complaints: lines of the server's log that a server without a fault does not write.
        versions: of what the server is made of, by name.
    """

    handler: str
    cases: tuple[Case, ...]
    missing: tuple[str, ...]
    complaints: tuple[str, ...]
    versions: dict[str, str]

    @property
    def passed(self) -> bool:
        return not self.missing and not self.complaints and all(case.passed for case in self.cases)


def run_cases(
    wstest: Wstest,
    handler: str,
    patterns: Sequence[str],
    folder: Path,
    progress: Callable[[str], None] = lambda line: None,
) -> Run:
    """Serve the echo with one handler and run cases against it, one after the other.

    Args:
        wstest: the suite's program.
        handler: its name in the entry-point group `uwasp.handlers`.
        patterns: which cases, in the suite's way: `1.1.3`, `7.*`.
        folder: for the logs, and the suite's reports as HTML and JSON.
        progress: called with a line of text now and then.

    Raises:
        RunFailed: no case matches one of the patterns; or uWSGI or the suite broke down.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        server = Uwsgi(ECHO, folder, *LOOP_OPTIONS[handler], env={"UWASP_HANDLER": handler})
        with running(server):
            announced = _run_suite(wstest, server, handler, patterns, folder, progress)
            if server.popen.poll() is not None:
                raise RunFailed(f"uWSGI ended during the run:\n{server.output}")
    except AssertionError as error:  # a process that does not start or stop
        raise RunFailed(str(error)) from error
    cases = tuple(_read_reports(folder / "reports", handler))
    reported = {case.id for case in cases}
    return Run(
        handler,
        cases,
        missing=tuple(id for id in announced if id not in reported),
        complaints=tuple(match.group() for match in COMPLAINT.finditer(server.output)),
        versions=_versions(server.output),
    )


def _run_suite(
    wstest: Wstest,
    server: Uwsgi,
    handler: str,
    patterns: Sequence[str],
    folder: Path,
    progress: Callable[[str], None],
) -> list[str]:
    """Run the suite to its end and return the ids of the cases that it set out to run."""
    specification = {
        "outdir": str(folder / "reports"),
        "servers": [{"agent": handler, "url": f"{server.url}/echo"}],
        "cases": list(patterns),
    }
    (folder / "fuzzingclient.json").write_text(json.dumps(specification))
    command = [str(wstest.program), "--mode", "fuzzingclient", "--spec", str(folder / "fuzzingclient.json")]
    index = folder / "reports" / "index.json"
    index.unlink(missing_ok=True)  # of an earlier run in the same folder
    env = {"PYTHONUNBUFFERED": "1", "PYTHONPATH": ""}  # no modules of this Python 3 for a Python 2
    suite = Process(command, folder / "wstest.log", env, cwd=folder)
    with running(suite):
        suite.wait_for_output("\nServers = ")
        announced = _announced(suite.output)
        for pattern in patterns:
            if not any(_matches(id, pattern) for id in announced):
                raise RunFailed(f"the suite has no case {pattern}")
        progress(f"{handler}: {len(announced)} cases")
        _wait(suite, progress)
        if suite.popen.returncode != 0 or not index.exists():
            raise RunFailed(f"wstest ended with {suite.popen.returncode} and without reports:\n{suite.output}")
    return announced


def _announced(output: str) -> list[str]:
    """The ids that the suite prints before it begins, as a list in Python's notation."""
    match = re.search(r"^Cases = (\[.*\])$", output, re.MULTILINE)
    if match is None:
        raise RunFailed(f"wstest does not say which cases it runs:\n{output}")
    return [str(id) for id in ast.literal_eval(match.group(1))]


def _matches(id: str, pattern: str) -> bool:
    """Whether a pattern means a case, by the suite's rule; a star there also means any beginning of an id."""
    if "*" not in pattern:
        return id == pattern
    return re.match(re.escape(pattern).replace(r"\*", ".*"), id) is not None


def _wait(suite: Process, progress: Callable[[str], None]) -> None:
    """Wait for the suite's end, as long as it begins a case now and then; tell of each section that it begins."""
    began = heard = time.monotonic()
    size, section = 0, ""
    while True:
        try:
            suite.popen.wait(0.5)
        except subprocess.TimeoutExpired:
            pass
        else:
            return
        now, output = time.monotonic(), suite.output
        if len(output) > size:
            heard, size = now, len(output)
            latest = re.findall(r"^Running test case ID (\d+)\.", output, re.MULTILINE)
            if latest and latest[-1] != section:
                section = latest[-1]
                progress(f"{now - began:6.0f} s  {section} {SECTIONS.get(section, '')}")
        elif now - heard > SILENCE_TIMEOUT:
            raise RunFailed(f"wstest said nothing for {SILENCE_TIMEOUT:.0f} s:\n{output}")


def _read_reports(folder: Path, handler: str) -> Iterable[Case]:
    index = json.loads((folder / "index.json").read_text()).get(handler, {})  # empty if nothing could connect
    for id in sorted(index, key=lambda id: [int(number) for number in id.split(".")]):
        report = index[id]
        particulars = json.loads((folder / report["reportfile"]).read_text())
        yield Case(id, handler, report["behavior"], report["behaviorClose"], report["duration"] / 1000, particulars)


def _versions(log: str) -> dict[str, str]:
    """What uWSGI says of itself and of the Python in it."""
    versions = {}
    for name, pattern in (("uWSGI", r"Starting uWSGI (\S+)"), ("CPython", r"^Python version: (\S+)")):
        match = re.search(pattern, log, re.MULTILINE)
        versions[name] = match.group(1) if match else "unknown"
    return versions


def table(runs: Sequence[Run]) -> str:
    """The verdicts as a Markdown table, a line for each section and handler; what there is none of stays empty."""
    lines: list[Sequence[str]] = [("section", "", "handler", "cases", *BEHAVIORS, *CLOSE_COLUMNS, "seconds")]
    sections = sorted({case.section for run in runs for case in run.cases}, key=int)
    for section in sections:
        for run in runs:
            cases = [case for case in run.cases if case.section == section]
            if cases:
                lines.append((section, SECTIONS.get(section, ""), run.handler, *_counts(cases)))
    lines += [("all", "", run.handler, *_counts(run.cases)) for run in runs]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    ruler = ["-" * width if column < WORD_COLUMNS else "-" * (width - 1) + ":" for column, width in enumerate(widths)]
    return "\n".join(_table_line(line, widths) for line in (lines[0], ruler, *lines[1:]))


def _table_line(cells: Sequence[str], widths: Sequence[int]) -> str:
    words = [cell.ljust(width) for cell, width in zip(cells[:WORD_COLUMNS], widths, strict=False)]
    numbers = [cell.rjust(width) for cell, width in zip(cells[WORD_COLUMNS:], widths[WORD_COLUMNS:], strict=True)]
    return f"| {' | '.join([*words, *numbers])} |"


def _counts(cases: Sequence[Case]) -> list[str]:
    behaviors = Counter(case.behavior for case in cases)
    closes = Counter(case.close for case in cases)
    counts = [len(cases), *(behaviors[name] for name in BEHAVIORS), *(closes[name] for name in CLOSES)]
    counts.append(len(cases) - sum(closes[name] for name in CLOSES))
    return [*(str(count or "") for count in counts), f"{sum(case.seconds for case in cases):.1f}"]


def describe(runs: Sequence[Run]) -> str:
    """Everything that keeps the runs from having passed, in full; nothing if they have."""
    parts = []
    for run in runs:
        if run.missing:
            parts.append(f"{run.handler}: without a result: {', '.join(run.missing)}")
        if run.complaints:
            parts.append("\n    ".join([f"{run.handler}: the server's log has", *run.complaints]))
        parts += [_describe_case(case) for case in run.cases if not case.passed]
    return "\n\n".join(parts)


def _describe_case(case: Case) -> str:
    what = case.particulars
    lines = [
        f"{case.id} on {case.handler}: {case.behavior}, close {case.close} ({case.seconds:.1f} s)",
        f"    case      {_plain(what['description'])}",
        f"    expected  {_plain(what['expectation'])}",
        *(f"              {name}: {_shorten(events)}" for name, events in what["expected"].items()),
        f"    got       {_shorten(what['received'])}: {what['result']}",
        f"    close     expected {_shorten(what['expectedClose'])}",
        f"              got code {what['remoteCloseCode']} {what['remoteCloseReason'] or ''}: {what['resultClose']}",
    ]
    if what["wasNotCleanReason"]:
        lines.append(f"              {what['wasNotCleanReason']}")
    return "\n".join(lines)


def _plain(html: str) -> str:
    """A text of the suite without its mark-up."""
    return " ".join(re.sub(r"<[^>]*>", " ", html).split())


def _shorten(value: Any, length: int = 300) -> str:
    text = str(value)
    return text if len(text) <= length else f"{text[:length]} ..."
