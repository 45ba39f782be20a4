"""What the questions found: tables for people, JSON for programs, plots for both."""

import json
import math
from dataclasses import asdict, dataclass, field


@dataclass
class Row:
    """One figure: `what` of `side`, which is a ratio to `against` ("empty handler", "gperftools", "0.5 s allowed")."""
    what: str
    side: str
    against: str
    median: float
    low: float
    high: float
    runs: int
    target: float = math.nan  # at most; NaN if nothing was promised
    least: bool = False  # the target is a least one
    note: str = ""
    values: dict = field(default_factory=dict)  # what the ratio was made of, in JSON only

    @property
    def met(self):
        if math.isnan(self.target):
            return None
        return self.median >= self.target if self.least else self.median <= self.target

    @property
    def near(self):
        """Whether the target lies among the middle half of the runs: another time it may be met, or missed."""
        return self.low < self.target < self.high


@dataclass
class Plot:
    name: str
    title: str
    x_label: str
    y_label: str
    lines: dict  # {name: [(x, y)...]}
    log: bool = True


def number(value):
    """Three digits that count, however large."""
    if value is None or not math.isfinite(value):
        return "-"
    if value == 0:
        return "0"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:.{min(digits, 4)}f}"


class Section:
    """What one question found."""

    def __init__(self, name, question):
        self.name, self.question = name, question
        self.rows, self.plots, self.left_out = [], [], []
        self.broken = False  # something that was to be measured could not be

    def add(self, what, side, against, figure, target=math.nan, least=False, note="", **values):
        """`target`: the most that the median may be, or with `least` the least."""
        self.rows.append(Row(what, side, against, figure.median, figure.low, figure.high, figure.n, target, least, note,
                             values))

    def without(self, side, why):
        """A side that could not be measured is said, never left out silently."""
        if (side, why) not in self.left_out:
            self.left_out.append((side, why))

    def failed(self, what, why):
        self.without(what, why)
        self.broken = True

    def plot(self, name, title, x_label, y_label, lines, log=True):
        self.plots.append(Plot(name, title, x_label, y_label, lines, log))

    def cells(self):
        header = ["", "side", "ratio to", "median", "quartiles", "runs", "target", ""]
        body = []
        for r in self.rows:
            target = "" if math.isnan(r.target) else f"{'≥' if r.least else '≤'} {number(r.target)}"
            met = {None: "", True: "met", False: "MISSED"}[r.met] + (", within the noise" if r.near else "")
            body.append([r.what, r.side, r.against, number(r.median), f"{number(r.low)}–{number(r.high)}", str(r.runs),
                         target, f"{met} {r.note}".strip()])
        return header, body

    def text(self):
        header, body = self.cells()
        widths = [max(len(row[i]) for row in [header, *body]) for i in range(len(header))]
        lines = ["  ".join(c.ljust(w) for c, w in zip(row, widths)).rstrip() for row in [header, *body]]
        return "\n".join([f"== {self.name}: {self.question}", *(lines if body else []),
                          *(f"not measured: {side}: {why}" for side, why in self.left_out)])

    def markdown(self):
        header, body = self.cells()
        rule = ["---"] * len(header)
        lines = ["| " + " | ".join(row) + " |" for row in [header, rule, *body]]
        return "\n".join([f"### {self.name}", "", self.question, "", *lines, "",
                          *(f"Not measured: {side}: {why}.\n" for side, why in self.left_out)])


def _json_ready(value):
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {k: _json_ready(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_json_ready(v) for v in value]
    return value


def write_json(path, machine, sections):
    """All that was found. Of rows also what the ratios were made of."""
    found = {"machine": machine, "questions": {
        s.name: {"question": s.question, "rows": [{**asdict(r), "met": r.met} for r in s.rows],
                 "plots": [asdict(p) for p in s.plots],
                 "not_measured": [{"side": side, "why": why} for side, why in s.left_out]} for s in sections}}
    path.write_text(json.dumps(_json_ready(found), indent=1) + "\n", encoding="utf-8")


def write_markdown(path, machine, sections):
    """The results as they stand in bench/README.md."""
    lines = [f"{k}: {v}  " for k, v in machine.items()]
    path.write_text("\n".join(lines + [""] + [s.markdown() for s in sections]) + "\n", encoding="utf-8")


def write_plot(path, plot):
    """An SVG. The library is loaded only here: it takes a second."""
    import matplotlib  # pylint: disable=import-outside-toplevel
    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "stile"  # the same figure, the same file
    from matplotlib import pyplot  # pylint: disable=import-outside-toplevel
    figure, axes = pyplot.subplots(figsize=(7.6, 4.6))
    for name, points in plot.lines.items():
        axes.plot([x for x, _ in points], [y for _, y in points], marker="o", markersize=3, label=name)
    if plot.log:
        axes.set_xscale("log")
        axes.set_yscale("log")
    axes.set(title=plot.title, xlabel=plot.x_label, ylabel=plot.y_label)
    axes.grid(True, which="major", alpha=0.3)
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, format="svg", metadata={"Date": None})
    pyplot.close(figure)
