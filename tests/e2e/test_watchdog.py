"""`stile record --crash-output`: a report even of a program that could not write one."""

import os
import re
import signal
import stat
import subprocess
import time

import pytest

import harness
from test_dump import sections


def record(tmp_path, *argv, crash="crash.txt", **options):
    return harness.run([harness.STILE, "record", "-o", tmp_path / "out.pb.gz", "--block", "--crash-output", crash,
                        "--", *argv], cwd=tmp_path, timeout=100, **options)


def named_part(text):
    names = "stile: the same stacks, named:\n"
    assert text.count(names) == 1 and text.endswith("stile: end of the names\n"), text[-3000:]
    return text[text.index(names):]


@pytest.mark.parametrize("how, number", [("kill", signal.SIGKILL), ("segv", signal.SIGSEGV)])
def test_report(tmp_path, how, number):
    """All threads, those that wait and the one that runs, whoever reports."""
    result = record(tmp_path, harness.program("standing"), "run", how)
    assert result.status == -number, result
    file = tmp_path / "crash.txt"
    text = file.read_text(encoding="utf-8")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert re.match(rf"stile: crash report of process \d+ \(standing\): {number.name}\b", text), text[:500]
    assert "stile: end of the report\n" in text
    found = sections(named_part(text))
    for name, function in [("in mutex", "stand_in_mutex"), ("in cond", "stand_in_cond"), ("in pipe", "stand_in_pipe"),
                           ("runs", "keep_running")]:
        assert any(f" {function} at " in line for line in found[name][1]), (name, found[name])
    if how == "kill":  # nothing of it is the program's
        assert "\nreporter: the collector; the program itself said nothing\nend: killed by signal 9\n" in text
        assert "last sampled" in found["runs"][0]
    # What symbolize makes of the part without names is the same.
    raw = text[:text.index("stile: the same stacks")]
    again = subprocess.run([str(harness.STILE), "symbolize"], input=raw.encode(), capture_output=True, check=True,
                           timeout=60).stdout.decode()
    assert {k: v[1] for k, v in sections(again).items()} == {k: v[1] for k, v in found.items()}


def test_relative_to_where_it_started(tmp_path):
    """The command may be somewhere else when it ends; the file is added to, and may have a pid in its name."""
    record(tmp_path, "sh", "-c", "cd /; exec \"$0\" kill", harness.program("standing"), crash="c.%p.txt")
    files = list(tmp_path.glob("c.*.txt"))
    assert len(files) == 1
    assert f"process {files[0].name.split('.')[1]} (standing): SIGKILL" in files[0].read_text(encoding="utf-8")
    assert record(tmp_path, harness.program("standing"), "kill", crash=files[0].name).status == -signal.SIGKILL
    assert files[0].read_text(encoding="utf-8").count("stile: end of the names\n") == 2


def test_killed_while_it_reports(tmp_path):
    """Its standard error is a pipe that nobody reads, and it is killed meanwhile: the file is whole all the same."""
    read, write = os.pipe()
    os.set_blocking(write, False)
    try:
        while True:
            os.write(write, b"x" * 4096)
    except BlockingIOError:
        pass
    os.set_blocking(write, True)
    with harness.Program([harness.program("standing"), "run", "segv"], profile=tmp_path / "out.pb.gz", stderr=write,
                         env={"PROFILE_CRASH": tmp_path / "crash.txt", "PROFILE_BLOCK": tmp_path / "b.pb.gz"}) as p:
        p.wait_output("standing")
        time.sleep(1)  # it has crashed, or is about to
        p.kill()
    os.close(read)
    os.close(write)
    file = tmp_path / "crash.txt"
    whole = "stile: end of the names\n"
    text = harness.wait_until(lambda: file.exists() and whole in file.read_text() and file.read_text(), 30)
    assert text, file.exists() and file.read_text()
    assert text.startswith("stile: crash report of process ") and text.count("stile: end of the report\n") == 1


@pytest.mark.parametrize("argv, status", [(["sh", "-c", "exit 3"], 3), (["sh", "-c", "kill -TERM $$"], -15)])
def test_no_crash(tmp_path, argv, status):
    """Who ends otherwise, however it does, has not crashed."""
    result = record(tmp_path, *argv)
    assert result.status == status, result
    file = tmp_path / "crash.txt"
    assert not file.exists() or file.read_bytes() == b""


@pytest.mark.parametrize("crash, words", [
    ("", "no file given"), ("/nonexistent/directory/file", "cannot write /nonexistent/directory/file"),
    ("link", "symbolic link"), (".", "Is a directory"),
])
def test_errors(tmp_path, crash, words):
    (tmp_path / "link").symlink_to("other")
    result = record(tmp_path, "true", crash=crash)
    assert result.status == 2
    assert words in harness.one_line(result.err)
