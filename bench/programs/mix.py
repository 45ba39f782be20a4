"""A fixed amount of work for CPython: calls, numbers, strings, tables, and compiling its own library.

    mix.py ROUNDS"""

import sys
from pathlib import Path

SOURCES = ["argparse", "ast", "dataclasses", "difflib", "enum", "inspect", "textwrap"]


def fibonacci(n):
    return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)


def sieve(n):
    left = bytearray([1]) * n
    for i in range(2, int(n ** 0.5) + 1):
        if left[i]:
            left[i * i::i] = bytes(len(range(i * i, n, i)))
    return sum(left)


class Point:
    def __init__(self, x, y):
        self.x, self.y = x, y

    def plus(self, other):
        return Point(self.x + other.x, self.y + other.y)


def objects(n):
    at = Point(0, 0)
    for i in range(n):
        at = at.plus(Point(i, -i))
    return at.x


def words(text):
    count = {}
    for word in text.split():
        count[word] = count.get(word, 0) + 1
    return sorted(count, key=lambda w: (-count[w], w))


def main():
    library = Path(sys.modules["pathlib"].__file__).parent
    texts = [(library / f"{name}.py").read_text(encoding="utf-8") for name in SOURCES]
    for i in range(int(sys.argv[1])):
        fibonacci(19)
        sieve(100_000)
        objects(15_000)
        for text in texts:
            words(text)
        compile(texts[i % len(texts)], "source", "exec")


main()
