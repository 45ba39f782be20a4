"""Where the driver and the product are."""

import os
import sys
from pathlib import Path

import pytest

SOURCE = Path(os.environ.get("STILE_SOURCE_DIR", Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(SOURCE / "bench"))


@pytest.fixture(scope="session")
def source():
    return SOURCE


@pytest.fixture(scope="session")
def build():
    return Path(os.environ.get("STILE_BUILD_DIR", SOURCE / "build")).resolve()
