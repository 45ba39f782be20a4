"""C01: the loader's lock is taken all the time, by who loads and unloads and by who reads the list of modules.
No tick asks for it."""

import pytest

from whole import assert_loader_beside

pytestmark = pytest.mark.measures


def test_loading_and_listing(out):
    assert_loader_beside(out, "turns", 500)
