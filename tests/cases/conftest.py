"""The cases use the end-to-end tests' harness and fixtures."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "e2e"))

# pylint: disable=wrong-import-position,unused-import
import table  # noqa: E402
from fixtures import mark, out, pytest_report_header, session_mark  # noqa: E402,F401


def pytest_configure(config):
    config.pluginmanager.register(table.Recorder(), "cases")
