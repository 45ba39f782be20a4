"""What each case C01 to C44 is run at: both ends of the rates, with barriers where they pay and wherever they can be."""

from typing import NamedTuple

import harness


class Setting(NamedTuple):
    hz: int
    barriers: str

    def __str__(self):
        return f"{self.hz} Hz {self.barriers}"

    @property
    def environment(self):
        """What a profiled program has beside PROFILE."""
        return {"PROFILE_HZ": str(self.hz), "PROFILE_BARRIERS": self.barriers}

    def record(self, out, *options):
        """`stile record` at this rate, up to the command. Its environment has the barriers."""
        return [harness.STILE, "record", "-F", self.hz, "-o", out, *options, "--"]


ALL = [Setting(hz, barriers) for hz in (100, 10000) for barriers in ("auto", "all")]
