"""The cases by id, with what became of each at each setting. As a plugin of pytest it writes down the results of a file of tests;
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
COLUMNS = ["100 Hz auto", "100 Hz all", "10000 Hz auto", "10000 Hz all"]
ELSE = "otherwise"
CASES = [f"C{i:02}" for i in range(1, 45)] + [f"B{i:02}" for i in range(1, 19)]
OUTCOMES = ["failed", "xpassed", "xfailed", "skipped", "passed"]
FILE = re.compile(r"test_([bc]\d\d)_(\w+)\.py")


def column(params):
    """Where a test with these parameters stands in the table. B01 to B18 have a mode and one rate."""
    if "setting" in params:
        return str(params["setting"])
    return f"10000 Hz {params['mode']}" if params.get("mode") in ("all", "auto") else ELSE


class Recorder:
    """Counts the outcomes of a file's tests by setting."""

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
        self.files.setdefault(item.path.name, {}).setdefault(column(callspec.params if callspec else {}),
                                                             Counter())[outcome] += 1
        if outcome == "skipped" and isinstance(report.longrepr, tuple):
            self.reasons.setdefault(item.path.name, set()).add(report.longrepr[2].removeprefix("Skipped: "))

    def pytest_sessionfinish(self):
        directory = os.environ.get(DIRECTORY)
        for name, found in self.files.items() if directory else ():
            Path(directory).mkdir(parents=True, exist_ok=True)
            (Path(directory) / f"{name}.json").write_text(json.dumps(
                {"settings": found, "reasons": sorted(self.reasons.get(name, ()))}))


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
        for counts in said["settings"].values():
            total.update(counts)
        rows.append((case, match[2].replace("_", " "), *(words(said["settings"].get(c, {})) for c in [*COLUMNS, ELSE])))
        reasons += [f"{case} skipped: {r}" for r in said["reasons"]]
    header = ("id", "case", *COLUMNS, ELSE)
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    shown = ["  ".join(text.ljust(width) for text, width in zip(row, widths)).rstrip() for row in [header, *rows]]
    ran = {row[0] for row in rows}
    missing = [case for case in CASES if case not in ran]
    return shown + reasons + ([f"not run: {', '.join(missing)}"] if missing else []) + [f"{len(rows)} files: {words(total)}"]


if __name__ == "__main__":
    print("\n".join(lines(sys.argv[1])))
