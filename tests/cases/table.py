"""The cases by id, with what became of each in each mode. As a plugin of pytest it writes down the results of a file of tests;
as a program it prints the table of all files that were run:

    python3 tests/cases/table.py DIRECTORY
"""

import json
import os
import re
import sys
from collections import Counter
from pathlib import Path

import pytest

DIRECTORY = "STILE_CASES"  # environment: where results go
OUTCOMES = ["failed", "xpassed", "xfailed", "skipped", "passed"]
FILE = re.compile(r"test_([bc]\d\d)_(\w+)\.py")


class Recorder:
    """Counts the outcomes of a file's tests by mode (`all`, `auto`; or "" where a test has none)."""

    def __init__(self):
        self.files = {}
        self.reasons = {}

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_makereport(self, item, call):
        report = (yield).get_result()
        match = FILE.fullmatch(item.path.name)
        if not match or (report.when != "call" and report.outcome == "passed"):
            return
        outcome = report.outcome
        if hasattr(report, "wasxfail"):
            outcome = "xfailed" if outcome == "skipped" else "xpassed"
        callspec = getattr(item, "callspec", None)
        mode = str(callspec.params.get("mode", "")) if callspec else ""
        self.files.setdefault(item.path.name, {}).setdefault(mode, Counter())[outcome] += 1
        if outcome == "skipped" and isinstance(report.longrepr, tuple):
            self.reasons.setdefault(item.path.name, set()).add(report.longrepr[2].removeprefix("Skipped: "))

    def pytest_sessionfinish(self):
        directory = os.environ.get(DIRECTORY)
        for name, modes in self.files.items() if directory else ():
            Path(directory).mkdir(parents=True, exist_ok=True)
            (Path(directory) / f"{name}.json").write_text(json.dumps(
                {"modes": modes, "reasons": sorted(self.reasons.get(name, ()))}))


def words(counts):
    return ", ".join(f"{counts[o]} {o}" for o in OUTCOMES if counts.get(o)) or "-"


def lines(directory):
    """The table, and the reasons of what was skipped."""
    rows, reasons, total = [], [], Counter()
    for path in sorted(Path(directory).glob("test_*.json")):
        match = FILE.fullmatch(path.stem)
        if not match:
            continue
        said = json.loads(path.read_text())
        case = match[1].upper()
        modes = dict(said["modes"])
        for counts in modes.values():
            total.update(counts)
        rows.append((case, match[2].replace("_", " "), words(modes.pop("all", {})), words(modes.pop("auto", {})),
                     words(sum((Counter(c) for c in modes.values()), Counter()))))
        reasons += [f"{case} skipped: {r}" for r in said["reasons"]]
    header = ("id", "case", "barriers all", "barriers auto", "both or neither")
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    shown = ["  ".join(text.ljust(width) for text, width in zip(row, widths)).rstrip() for row in [header, *rows]]
    return shown + reasons + [f"{len(rows)} cases: {words(total)}"]


if __name__ == "__main__":
    print("\n".join(lines(sys.argv[1])))
