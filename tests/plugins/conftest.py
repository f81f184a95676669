"""What tests of plugins share."""

from collections.abc import Callable
from typing import Any

import pytest


@pytest.fixture
def begun(begun: Callable[..., Any]) -> Callable[..., Any]:
    """With a memory of 24 items, unless another number or None is given."""
    return lambda *plugins, items=24, **options: begun(*plugins, items=items, **options)
