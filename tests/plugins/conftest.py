"""What tests of plugins share."""

import pytest


@pytest.fixture
def begun(begun):
    """With a memory of 24 items, unless another number or None is given."""
    return lambda *plugins, items=24, **options: begun(*plugins, items=items, **options)
