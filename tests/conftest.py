"""What every test may ask for."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def test_data() -> Path:
    """Folder of the real data; without it the test is skipped, or fails where it is required."""
    beside = Path(__file__).parents[2] / "shared" / "data"
    folder = Path(os.environ.get("CONTINUAL_MM_TEST_DATA") or beside)
    if folder.is_dir():
        return folder
    reason = f"no test data at {folder}: set CONTINUAL_MM_TEST_DATA to its folder"
    if os.environ.get("CONTINUAL_MM_REQUIRE_TEST_DATA") == "1":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)
