"""Sessions for Spark steps: of a Spark inside this process, or of a server that speaks Spark Connect."""

from __future__ import annotations

import importlib
import shutil
import threading
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field, field_validator

from platform_core.errors import PluginError
from platform_core.plugins.interfaces import SparkSessions
from platform_core.settings import environment_value
from platform_core.specs.base import Model, SecretRef

# No extra of the platform's: its 400 MB are for whoever runs Spark steps, and its version is that of the cluster.
_INSTALL = "install it: pip install 'pyspark[connect]>=4,<5'"


class LocalSparkOptions(Model):
    """A Spark inside the process of a run."""

    master: str = Field(default="local[2]", description="Where it works.", examples=["local[2]", "local[*]"])
    config: dict[str, str] = Field(
        default_factory=dict, description="Properties of Spark.", examples=[{"spark.driver.memory": "2g"}]
    )

    @field_validator("master")
    @classmethod
    def _check_master(cls, value: str) -> str:
        if not value.startswith("local"):
            raise ValueError("must be local or local[threads]; a cluster is reached with type connect")
        return value


class LocalSpark(SparkSessions):
    """One Spark for all steps of a process; it takes seconds to start, and each step has a session of its own."""

    Options = LocalSparkOptions
    _starting: ClassVar[threading.Lock] = threading.Lock()

    def open(self, *, name: str) -> Any:
        """A session that shares nothing but the machine with other steps."""
        spark = _pyspark()
        _refuse_without_java()
        options: LocalSparkOptions = self.options
        builder = spark.SparkSession.builder.master(options.master).appName(name)
        for key, value in {**_DEFAULTS, **options.config}.items():
            builder = builder.config(key, value)
        with self._starting:
            return builder.getOrCreate().newSession()

    def close(self, session: Any) -> None:
        """Drop what the step has cached; Spark goes on for other steps."""
        session.catalog.clearCache()


class ConnectSparkOptions(Model):
    """A server that speaks Spark Connect."""

    url: str = Field(
        description="Its address, without a token.", examples=["sc://spark.example.com:15002/;use_ssl=true"]
    )
    token: SecretRef | None = Field(default=None, description="Sent with every request.")

    @field_validator("url")
    @classmethod
    def _check_url(cls, value: str) -> str:
        if not value.startswith("sc://"):
            raise ValueError("must begin with sc://")
        if "token=" in value.lower():
            raise ValueError("must hold no token: name the secret under 'token'")
        return value


class ConnectSpark(SparkSessions):
    """A session for each step on a server: Spark Connect, of which Databricks Connect is one."""

    Options = ConnectSparkOptions

    def open(self, *, name: str) -> Any:
        """A session of its own on the server."""
        options: ConnectSparkOptions = self.options
        builder = _pyspark().SparkSession.builder.appName(name)
        return builder.remote(self._address(options)).create()

    def close(self, session: Any) -> None:
        """End the session on the server."""
        session.stop()

    def _address(self, options: ConnectSparkOptions) -> str:
        if options.token is None:
            return options.url
        token = self.secret(options.token.secret).reveal().decode()
        separator = "" if options.url.endswith((";", "/;")) else ";" if "/;" in options.url else "/;"
        return f"{options.url}{separator}token={token}"


_DEFAULTS = {
    # Its UI would open a port that nobody asked for, and answer whoever asks.
    "spark.ui.enabled": "false",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.driver.host": "127.0.0.1",
    "spark.sql.session.timeZone": "UTC",
}


def _pyspark() -> Any:
    try:
        return importlib.import_module("pyspark.sql")
    except ImportError:
        raise PluginError(f"a step of kind spark needs pyspark\n  {_INSTALL}") from None


def _refuse_without_java() -> None:
    home = environment_value("JAVA_HOME")
    if (home and Path(home, "bin", "java").is_file()) or shutil.which("java"):
        return
    raise PluginError(
        "Spark needs Java 17 or newer, and there is none\n  looked at JAVA_HOME and PATH\n"
        "  install one, such as the package openjdk-17-jre-headless, or use a Spark elsewhere: type connect"
    )
