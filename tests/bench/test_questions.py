"""Each question, asked once with little work: it finds something for Stile, in all forms, and leaves nothing behind."""

import json
import math
import subprocess
import sys

import pytest

import run

LIMIT_S = 300


@pytest.mark.parametrize("question", run.QUESTIONS)
def test_question(question, source, build, tmp_path):
    out, scratch = tmp_path / "out", tmp_path / "scratch"
    scratch.mkdir()
    r = subprocess.run([sys.executable, "-B", source / "bench" / "run.py", "--build", build, "--quick", "-o", out, question],
                       capture_output=True, timeout=LIMIT_S, check=False, env={"PATH": "/usr/bin:/bin", "TMPDIR": str(scratch)})
    assert r.returncode == 0, r.stdout.decode() + r.stderr.decode()
    found = json.loads((out / "results.json").read_text())["questions"][question]
    ours = [row for row in found["rows"] if row["side"].startswith("stile")]
    # A difference that is smaller than the noise of a single run is no figure, and has none.
    assert any(row["runs"] >= 1 and math.isfinite(row["median"]) for row in ours), found
    assert all((row["median"] is None) == (row["runs"] == 0) for row in ours), ours
    assert all(left["why"] for left in found["not_measured"]), found["not_measured"]
    text = r.stdout.decode()
    assert f"== {question}: " in text and f"### {question}" in (out / "results.md").read_text()
    for plot in found["plots"]:
        assert (out / f"{plot['name']}.svg").stat().st_size > 0
    assert not list(scratch.iterdir())
