"""How hard hypothesis searches: a little in every run, as much as wanted with CONNECT_TEST_EXAMPLES=<number>."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings


def examples(usual: int, *, steps: int = 50) -> settings:
    """`usual` examples (of `steps` steps, for a state machine), or as many as the environment asks for."""
    return settings(
        max_examples=int(os.environ.get("CONNECT_TEST_EXAMPLES", usual)),
        stateful_step_count=steps,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
    )
