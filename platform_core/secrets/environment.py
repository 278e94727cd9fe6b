"""Secrets from environment variables."""

from __future__ import annotations

import re

from pydantic import Field

from platform_core.errors import SecretMissing
from platform_core.plugins.interfaces import Secret, SecretStore
from platform_core.settings import environment_value
from platform_core.specs.base import Model

_OTHER = re.compile(r"[^A-Z0-9]")


class EnvironmentOptions(Model):
    """How a secret's name becomes a variable's."""

    prefix: str = Field(default="EDP_SECRET_", description="Begins the name of every variable that holds a secret.")


class EnvironmentSecrets(SecretStore):
    """Reads ``<workstream>/<name>`` from ``EDP_SECRET_<WORKSTREAM>_<NAME>``.

    Two names that differ only in ``/`` and ``_`` share a variable; the file store tells them apart.
    """

    Options = EnvironmentOptions
    options: EnvironmentOptions

    def get(self, name: str) -> Secret:
        variable = self.options.prefix + _OTHER.sub("_", name.upper())
        value = environment_value(variable)
        if not value:
            raise SecretMissing(
                f"secret '{name}' is not set\n  looked at: environment variable {variable}\n"
                "  set it where this process is started, or choose another secret store in the environment file"
            )
        return Secret(name, value.encode())
