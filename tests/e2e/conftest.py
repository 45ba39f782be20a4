"""Fixtures of the end-to-end tests."""

# pylint: disable=unused-import
from fixtures import mark, out, pytest_report_header, session_mark  # noqa: F401


def pytest_configure(config):
    """Tests of what the walker does not do yet, by what it is: `-m "not to_come"` leaves them out."""
    config.addinivalue_line("markers", "to_come(what): fails until stacks are walked so far")
