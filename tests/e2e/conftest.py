"""Fixtures of the end-to-end tests."""

# pylint: disable=unused-import
from disturbance import pytest_configure, pytest_pyfunc_call, pytest_terminal_summary  # noqa: F401
from fixtures import mark, out, pytest_report_header, session_mark  # noqa: F401
