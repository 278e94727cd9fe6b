"""What is shared by the tests of the semantics."""

import pytest

# Before anything imports it.
pytest.register_assert_rewrite("tests.alerts.services")
