from __future__ import annotations

from typing import cast

import pytest


@pytest.fixture(params=["oldest", "newest"])
def which(request: pytest.FixtureRequest) -> str:
    """Which Envoy."""
    return cast("str", request.param)
