"""C02: code is mapped and unmapped all the time; the tick that interrupts the reading of it finds no lock of ours."""

import pytest

from whole import assert_loader_beside

pytestmark = pytest.mark.measures


def test_mapping_and_unmapping(out):
    assert_loader_beside(out, "maps", 400)
