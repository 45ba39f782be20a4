"""The fixtures that every end-to-end test and every case has."""

import os
import uuid

import pytest

import harness


def _expect_nothing_left(mark):
    """Whatever is still there after a while is ended, and that is a failure."""
    harness.wait_until(lambda: not harness.marked(mark), 15, 0.02)
    left = harness.marked(mark)
    for p in left:
        harness.end_process(p)
    assert not left, f"still there 15 s later: {left}"


@pytest.fixture(autouse=True)
def mark(monkeypatch):
    """Marks all that the test starts, and sees to it that nothing of it stays behind."""
    value = f"/nonexistent/{uuid.uuid4().hex}"
    monkeypatch.setenv(harness.MARK, value)
    yield value
    _expect_nothing_left(value)


@pytest.fixture(scope="session", autouse=True)
def session_mark():
    """The same for what fixtures of a wider scope start."""
    value = f"/nonexistent/{uuid.uuid4().hex}"
    os.environ[harness.MARK] = value
    yield value
    _expect_nothing_left(value)


@pytest.fixture
def out(tmp_path):
    """Where a profile is to be written: a directory of its own, so that nothing else may turn up in it."""
    directory = tmp_path / "profiles"
    directory.mkdir()
    yield directory / "out.pb.gz"


def pytest_report_header():
    return f"build: {harness.BUILD}, tick {harness.TICK_HZ} Hz, uid {os.getuid()}"
