"""What a Python program does: calls, JSON, regular expressions, dictionaries; for so many seconds of CPU time."""
import json
import re
import sys
import time


def fib(n):
    return n if n < 2 else fib(n - 1) + fib(n - 2)


def tree(n):
    return {} if n == 0 else {"left": tree(n - 1), "right": tree(n - 1), "n": [n] * 3}


def depth(t):
    return 1 + max(map(depth, (t["left"], t["right"]))) if t else 0


end = time.process_time() + float(sys.argv[1])
while time.process_time() < end:
    fib(16)
    made = json.loads(json.dumps(tree(7)))
    depth(made)
    re.sub(r"(\d+)|([a-c]+)", lambda m: (m.group(1) or "x") * 2, "a1b22c333" * 50)
    counts = {}
    for word in json.dumps(made, indent=1).split():
        counts[word] = counts.get(word, 0) + 1
    sorted(counts.items(), key=lambda item: (-item[1], item[0]))
