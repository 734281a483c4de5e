"""What the tests against other programs share."""

from __future__ import annotations

import pytest

import lora_core as lc
from tests.peers.stranger import random_base


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> lc.Base:
    """A small base of random weights; its `source` is a folder that `transformers` opens."""
    return random_base(tmp_path_factory.mktemp("tiny") / "base")
