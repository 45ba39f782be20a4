"""The cases use the end-to-end tests' harness and fixtures. Those of the field's reports (C01 to C44) are run at each setting:
`harness.run(..., profile=out)` has it without being told; a test that needs to know takes the argument `setting`."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "e2e"))

# pylint: disable=wrong-import-position,unused-import
import disturbance  # noqa: E402
import harness  # noqa: E402
import settings  # noqa: E402
import table  # noqa: E402
from fixtures import mark, out, pytest_report_header, session_mark  # noqa: E402,F401


def pytest_configure(config):
    config.pluginmanager.register(table.Recorder(), "cases")
    config.pluginmanager.register(disturbance, "disturbance")


def pytest_generate_tests(metafunc):
    if metafunc.definition.path.name.startswith("test_c"):
        metafunc.parametrize("setting", settings.ALL, ids=str, indirect=True)


@pytest.fixture(autouse=True)
def setting(request, monkeypatch):
    """The setting of this run of the test; None for the other cases."""
    value = getattr(request, "param", None)
    if value is not None:
        for name, text in value.environment.items():
            monkeypatch.setitem(harness.SETTING, name, text)
    return value
