"""Programs made with Google Benchmark."""

import json

from driver.measure import Failed

ABSENT = "Google Benchmark was not there when this was built (Debian: libbenchmark-dev)"


def built(bench, name):
    """Whether there is such a program."""
    return (bench.build / "bench" / name).exists()


def argv(program, seconds, repetitions=1):
    """How it is run: each benchmark so long and so often, in an order of chance."""
    return [program, "--benchmark_format=json", f"--benchmark_min_time={seconds}",
            f"--benchmark_repetitions={repetitions}",
            f"--benchmark_enable_random_interleaving={'true' if repetitions > 1 else 'false'}"]


def times(run, what="cpu_time"):
    """{name: [nanoseconds of CPU time of an iteration, in each repetition]}, or of a counter."""
    found = {}
    try:
        told = json.loads(run.out)["benchmarks"]
    except (ValueError, KeyError) as e:
        raise Failed("a program of Google Benchmark has not told what it measured") from e
    for b in told:
        if b.get("error_occurred"):
            raise Failed(f"{b['name']}: {b['error_message']}")
        if b["run_type"] == "iteration":
            found.setdefault(b["run_name"], []).append(b[what])
    if not found:
        raise Failed("a program of Google Benchmark has measured nothing")
    return found
