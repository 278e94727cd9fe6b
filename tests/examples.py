"""How many examples a property is tried on."""

from __future__ import annotations

import os


def examples(usual: int) -> int:
    """So many where every change is tested, ten times as many where new ones are looked for.

    Examples are the same in every run (the profile ``fixed`` in ``tests/conftest.py``), so what a few of them do not
    show, more of them would not find tomorrow either: that is what HYPOTHESIS_PROFILE=explore is for.
    """
    return usual * 10 if os.environ.get("HYPOTHESIS_PROFILE") == "explore" else usual
