"""Fixtures of the end-to-end tests."""

# pylint: disable=unused-import
from fixtures import mark, out, pytest_report_header, session_mark  # noqa: F401
