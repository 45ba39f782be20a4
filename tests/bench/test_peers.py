"""Peers by path that do not what they should: they are left out, and said, and leave nothing behind."""

import json
import signal
import subprocess
import sys
import time

import pytest

PEERS = {"crashes": ("#include <stdlib.h>\n__attribute__((constructor)) static void begin(void) { abort(); }", "ended with -6"),
         "fails": ("#include <unistd.h>\n__attribute__((destructor)) static void end(void) { _exit(1); }", "ended with 1"),
         "hangs": ("#include <unistd.h>\n__attribute__((constructor)) static void begin(void)\n"
                   "{ if (fork() == 0) setsid(); for (;;) pause(); }", "still runs"),
         "no library": (None, "cannot be preloaded")}


def start(source, build, tmp_path, *words):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    argv = [sys.executable, "-B", source / "bench" / "run.py", "--build", build, "--quick", "-o", tmp_path / "out", *words]
    return scratch, subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                     env={"PATH": "/usr/bin:/bin", "TMPDIR": str(scratch)})


def running(path):
    """Processes in whose command line this is."""
    return subprocess.run(["pgrep", "-f", str(path)], capture_output=True, check=False).stdout


@pytest.mark.parametrize("peer", PEERS)
def test_bad_peer_is_left_out(peer, source, build, tmp_path):
    text, words = PEERS[peer]
    library = tmp_path / "peer.so"
    if text is None:
        library.write_text("nothing of this kind")
    else:
        subprocess.run(["cc", "-shared", "-fPIC", "-xc", "-", "-o", library], input=text.encode(), check=True)
    scratch, driver = start(source, build, tmp_path, "--peer", f"bad={library}", "startup")
    out, err = driver.communicate(timeout=120)
    assert driver.returncode == 0, out + err
    found = json.loads((tmp_path / "out" / "results.json").read_text())["questions"]["startup"]
    assert [left["side"] for left in found["not_measured"]].count("bad") == 1
    assert any(left["side"] == "bad" and words in left["why"] for left in found["not_measured"]), found["not_measured"]
    sides = {row["side"] for row in found["rows"]}
    assert "bad" not in sides and {"stile", "stile, PROFILE unset"} <= sides
    assert not list(scratch.iterdir()) and not running(scratch)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted(number, source, build, tmp_path):
    """What is done is kept, what runs is ended."""
    scratch, driver = start(source, build, tmp_path, "startup", "overhead")
    for line in driver.stdout:
        if line.startswith(b"== startup"):
            break
    time.sleep(0.5)
    driver.send_signal(number)
    _, err = driver.communicate(timeout=60)
    assert driver.returncode == 130 and err.startswith(b"bench: interrupted") and err.count(b"\n") == 1, err
    assert json.loads((tmp_path / "out" / "results.json").read_text())["questions"]["startup"]["rows"]
    assert not list(scratch.iterdir()) and not running(scratch)
