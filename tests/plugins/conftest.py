"""What the tests of plug-ins share."""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite("platform_core.plugins.testing")
