"""Which version of the platform makes and applies plans, and what its specs can hold."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from importlib.metadata import version

from platform_core.control.store.kinds import KINDS

_PACKAGE = "edp-platform-core"


@cache
def platform_release() -> str:
    """Version of the installed platform."""
    return version(_PACKAGE)


@cache
def specs_digest() -> str:
    """SHA-256 (hex) of the schemas of all specs: two versions with the same one understand each other's rows."""
    schemas = {name: kind.model.model_json_schema() for name, kind in KINDS.items()}
    return hashlib.sha256(json.dumps(schemas, sort_keys=True).encode()).hexdigest()
