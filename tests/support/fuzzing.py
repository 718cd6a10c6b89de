# SPDX-License-Identifier: Apache-2.0
"""How long a fuzzing test tries: bounded and the same each time for `make test`, long and random for `make fuzz`."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

FACTOR_VARIABLE = "CLOISTER_FUZZ_FACTOR"
"""How many times more examples than in the test suite; `make fuzz` sets it."""
_FACTOR = int(os.environ.get(FACTOR_VARIABLE, "1"))


def examples(number: int) -> settings:
    """Settings of a test that tries `number` examples in the test suite."""
    return settings(
        max_examples=number * _FACTOR,
        derandomize=_FACTOR == 1,
        database=None,
        deadline=None,
        # A site lives as long as its module; the time that an example takes is not what is tested.
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
    )
