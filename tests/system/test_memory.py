"""How much memory a process has held at most."""

import numpy as np
import pytest

from continual_mm.system import memory
from continual_mm.system.memory import PeakMemory

MEGABYTE = 1 << 20


def held():
    """Bytes in memory now, by another file of Linux than the one that is tested."""
    return int(memory._PROCESS.joinpath("statm").read_text().split()[1]) * 4096


@pytest.mark.skipif(not memory._PROCESS.is_dir(), reason="there is no /proc")
def test_the_peak_counts_from_when_it_is_asked_for():
    np.ones(200 * MEGABYTE, np.uint8)
    peak, before = PeakMemory(), held()
    np.ones(50 * MEGABYTE, np.uint8)
    assert 45 * MEGABYTE < peak.bytes - before < 60 * MEGABYTE


def test_where_a_system_has_one_maximum_only_an_earlier_one_is_no_number_of_ours(
    monkeypatch, tmp_path
):
    monkeypatch.setattr(memory, "_PROCESS", tmp_path / "none")  # as on macOS
    np.ones(300 * MEGABYTE, np.uint8)
    peak = PeakMemory()
    assert peak.bytes is None
    np.ones(400 * MEGABYTE, np.uint8)
    assert peak.bytes > 400 * MEGABYTE
