# SPDX-License-Identifier: Apache-2.0
"""Adapters on a base in 4 bits, with the real library."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

SUPPORT = Path(__file__).parents[1] / "support"


def test_adapters_on_a_base_in_four_bits_learn() -> None:
    """The base's linear layers are packed and its head is not, and the adapter on them lowers the held-out loss."""
    library = Path(sys.prefix) / "quantization"  # where `make setup` puts it, apart from the environment
    paths = os.pathsep.join([str(library), str(SUPPORT)])
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(SUPPORT / "four_bits.py")],
        env={**os.environ, "PYTHONPATH": paths, "HF_HUB_OFFLINE": "1"},
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    found = json.loads(done.stdout.splitlines()[-1])
    assert ("Linear4bit", "Linear") == (found["query"], found["classifier"])
    before, after = found["losses"]
    assert after < before
    assert {"adapter_model.safetensors", "adapter_config.json"} <= set(found["files"])
