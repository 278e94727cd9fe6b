"""Secrets from an Azure Key Vault, read under the workload's own identity."""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from platform_core.errors import PluginError, SecretError, SecretMissing
from platform_core.plugins.interfaces import Secret, SecretEntry, SecretStore
from platform_core.secrets.key_vault_names import secret_name, vault_name
from platform_core.secrets.names import check_name, check_value
from platform_core.settings import environment_value
from platform_core.specs.base import Duration, Model

if TYPE_CHECKING:
    from azure.keyvault.secrets import SecretClient

_CODE = re.compile(r"[A-Za-z]{1,60}")
_OWNER = "owner"
_BINARY = "application/octet-stream;base64"
_LONG_AGO = dt.datetime.min.replace(tzinfo=dt.UTC)
_TRIES = 4
_ALL_SECONDS = 60


class AzureKeyVaultOptions(Model):
    """Which Key Vault, and as whom it is asked."""

    url: str = Field(description="https://<name>.vault.azure.net", examples=["https://edp-prod.vault.azure.net"])
    identity: Literal["workload_identity", "managed_identity", "client_secret"] = Field(
        default="workload_identity",
        description="workload_identity: a token that Kubernetes or the pipeline put into a file; managed_identity: the "
        "machine's own; client_secret: a secret of an app registration, in an environment variable.",
    )
    client_id: str | None = Field(
        default=None, description="Of the identity; default: AZURE_CLIENT_ID, and the system-assigned managed identity."
    )
    tenant_id: str | None = Field(default=None, description="Default: AZURE_TENANT_ID.")
    client_secret_variable: str = Field(
        default="AZURE_CLIENT_SECRET", description="Environment variable with the secret, for identity client_secret."
    )
    authority: str = Field(
        default="https://login.microsoftonline.com", description="Where tokens come from; another one in other clouds."
    )
    cache: Duration = Field(
        default=timedelta(minutes=5), description="How long a value is used before it is asked for again."
    )

    @field_validator("url", "authority")
    @classmethod
    def _check_url(cls, value: str) -> str:
        parts = urlsplit(value)
        if parts.scheme != "https" or not parts.hostname or parts.username or parts.path.strip("/") or parts.query:
            raise ValueError("must read https://<host>, with nothing behind it")
        return value.rstrip("/")

    @model_validator(mode="after")
    def _check_cache(self) -> Self:
        if self.cache < timedelta(0):
            raise ValueError("cache cannot be negative")
        return self


@dataclass
class _Remembered:
    """A value, and the lock under which one thread at a time asks for it."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    secret: Secret | None = field(default=None, repr=False)
    until: float = 0.0


class AzureKeyVaultSecrets(SecretStore):
    """Reads and writes secrets of one Key Vault; ``<workstream>/<name>`` is ``<workstream>--<name>`` there.

    A value is remembered for a while, so that a run of many tables asks once; what fails is never remembered.
    """

    Options = AzureKeyVaultOptions
    options: AzureKeyVaultOptions
    writable = True
    listable = True
    keeps_metadata = True

    def __init__(self, options: AzureKeyVaultOptions, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Keep the options; the Key Vault is asked when the first secret is.

        Args:
            options: where it is.
            clock: tells seconds, for what is remembered.
        """
        super().__init__(options)
        self._clock = clock
        self._lock = threading.Lock()
        self._remembered: dict[str, _Remembered] = {}

    def get(self, name: str) -> Secret:
        return self._asked(name, renew=False)

    def fresh(self, name: str) -> Secret:
        return self._asked(name, renew=True)

    def set(
        self, name: str, value: bytes, *, owner: str | None = None, expires_at: dt.datetime | None = None
    ) -> SecretEntry:
        there = self._written_name(name)
        check_value(name, value)
        text, kind = _as_text(value)
        check_value(name, text.encode())
        with self._asking(name):
            tags = {_OWNER: owner} if owner else self._tags(there)
            # Removed from memory first: another thread of this process must not go on with the old value for long.
            self._forget(name)
            kept = self._client.set_secret(there, text, tags=tags, content_type=kind, expires_on=expires_at)
        self._forget(name)
        return _entry(name, kept.properties)

    def remove(self, name: str) -> bool:
        """Remove a secret; Key Vault keeps it recoverable for the days that it was set up with."""
        from azure.core.exceptions import ResourceNotFoundError

        there = self._written_name(name)
        self._forget(name)
        with self._asking(name):
            try:
                self._client.begin_delete_secret(there)
            except ResourceNotFoundError:
                return False
        return True

    def entries(self) -> list[SecretEntry]:
        with self._asking(None):
            named = ((secret_name(found.name or ""), found) for found in self._client.list_properties_of_secrets())
            return sorted((_entry(name, found) for name, found in named if name), key=lambda entry: entry.name)

    def _asked(self, name: str, *, renew: bool) -> Secret:
        there = self._written_name(name)
        remembered = self._memory(name)
        with remembered.lock:
            if not renew and remembered.secret is not None and self._clock() < remembered.until:
                return remembered.secret
            remembered.secret = None
            with self._asking(name):
                found = self._client.get_secret(there)
            value = _as_bytes(name, found.value, found.properties.content_type)
            if not value:
                raise SecretError(f"secret '{name}' is empty\n  looked at: {self.options.url}, secret {there}")
            secret = Secret(name, value, expires_at=found.properties.expires_on)
            remembered.secret = secret
            remembered.until = self._clock() + self.options.cache.total_seconds()
            return secret

    def _written_name(self, name: str) -> str:
        check_name(name)
        there = vault_name(name)
        if there is None:
            raise SecretError(
                f"secret name '{name}' is too long for a Key Vault, where every sign takes several characters\n"
                "  choose a shorter one, of lower case letters, digits and '_'"
            )
        return there

    def _memory(self, name: str) -> _Remembered:
        with self._lock:
            return self._remembered.setdefault(name, _Remembered())

    def _forget(self, name: str) -> None:
        with self._lock:
            self._remembered.pop(name, None)

    def _tags(self, there: str) -> dict[str, str]:
        """The tags of the value that is replaced: a new one would have none."""
        versions = list(self._client.list_properties_of_secret_versions(there))
        newest = max(versions, key=lambda found: found.created_on or _LONG_AGO, default=None)
        return dict(newest.tags or {}) if newest else {}

    @contextmanager
    def _asking(self, name: str | None) -> Iterator[None]:
        """Errors of the service are told by their code: their texts are the service's own."""
        from azure.core.exceptions import AzureError

        about = f"secret '{name}'" if name else "the list of secrets"
        try:
            yield
        except AzureError as error:
            raise self._told(about, name, error) from None
        except ValueError as error:
            # The client refuses a challenge that names another service than the one it asked.
            raise SecretError(
                f"{about}: {self.options.url} did not answer like a Key Vault ({type(error).__name__})\n"
                "  check 'url' of the secret store in the environment file"
            ) from None

    def _told(self, about: str, name: str | None, error: Exception) -> SecretError:
        from azure.core.exceptions import ClientAuthenticationError, HttpResponseError

        there = "" if name is None else f", secret {vault_name(name)}"
        looked = f"looked at: {self.options.url}{there}"
        status = getattr(error, "status_code", None)
        codes = list(_codes(error))
        label = ", ".join([type(error).__name__, *([f"status {status}"] if status else []), *codes])
        if isinstance(error, ClientAuthenticationError) or status == 401:
            return SecretError(
                f"{about}: no token as {self.options.identity} ({label})\n  {looked}\n"
                "  check identity, client_id and tenant_id of the secret store, and that the identity exists"
            )
        if not isinstance(error, HttpResponseError) or status is None:
            return SecretError(
                f"{about}: the Key Vault cannot be reached ({label})\n  {looked}\n"
                "  check url, network and firewall of the Key Vault"
            )
        if status == 404:
            kind = SecretError if name is None else SecretMissing
            return kind(
                f"{about} is missing\n  {looked}\n"
                f"  set it: edp secrets set {name or '<workstream>/<name>'}; if it was deleted, recover it: "
                "az keyvault secret recover"
            )
        advice = f"the Key Vault refuses or fails ({label})"
        if status == 403:
            advice = "the identity may not; give it the role 'Key Vault Secrets User' (to set: 'Secrets Officer')"
            if "SecretDisabled" in codes:
                advice = "it is disabled; enable it, or set it anew"
            elif "ForbiddenByFirewall" in codes:
                advice = "the Key Vault's firewall refuses this machine; allow its network"
        elif status == 409:
            advice = (
                "a secret of that name was deleted and can be recovered; recover or purge it first: "
                "az keyvault secret recover"
            )
        elif status == 429:
            advice = "the Key Vault is asked too often; raise 'cache' of the secret store, or wait"
        elif status >= 500:
            advice = "the Key Vault is out of order for the moment; try again"
        return SecretError(f"{about}: the Key Vault refused ({label})\n  {looked}\n  {advice}")

    @cached_property
    def _client(self) -> SecretClient:
        try:
            from azure.keyvault.secrets import SecretClient
        except ImportError as error:
            raise PluginError(_missing(error.name)) from None
        return SecretClient(
            vault_url=self.options.url,
            credential=self._credential(),
            retry_total=_TRIES - 1,
            retry_backoff_max=10,
            timeout=_ALL_SECONDS,
            connection_timeout=10,
            read_timeout=20,
        )

    def _credential(self) -> Any:
        try:
            from azure import identity
        except ImportError as error:
            raise PluginError(_missing(error.name)) from None
        options = self.options
        client_id = options.client_id or environment_value("AZURE_CLIENT_ID")
        if options.identity == "managed_identity":
            return identity.ManagedIdentityCredential(client_id=client_id)
        tenant_id = options.tenant_id or environment_value("AZURE_TENANT_ID")
        wanted = {"client_id (or AZURE_CLIENT_ID)": client_id, "tenant_id (or AZURE_TENANT_ID)": tenant_id}
        token_file, password = environment_value("AZURE_FEDERATED_TOKEN_FILE"), None
        if options.identity == "workload_identity":
            wanted["the variable AZURE_FEDERATED_TOKEN_FILE"] = token_file
        else:
            password = environment_value(options.client_secret_variable)
            wanted[f"the variable {options.client_secret_variable}"] = password
        if missing := [what for what, value in wanted.items() if not value]:
            raise SecretError(
                f"no token as {options.identity}: {' and '.join(missing)} not set\n"
                f"  looked at: the secret store of the environment file, and the variables of this process"
            )
        more = {
            "authority": options.authority,
            # Whom to trust is said in the environment file; asking a third host for it would be one more to reach.
            "disable_instance_discovery": options.authority != AzureKeyVaultOptions.model_fields["authority"].default,
        }
        if options.identity == "workload_identity":
            return identity.WorkloadIdentityCredential(
                client_id=client_id, tenant_id=tenant_id, token_file_path=token_file, **more
            )
        return identity.ClientSecretCredential(str(tenant_id), str(client_id), str(password), **more)


def _codes(error: Exception) -> Iterator[str]:
    """The service's codes of an error and of the one in it; words of its own choosing, never texts."""
    found = getattr(error, "error", None)
    while found is not None:
        code = found.get("code") if isinstance(found, dict) else getattr(found, "code", None)
        if isinstance(code, str) and _CODE.fullmatch(code):
            yield code
        found = found.get("innererror") if isinstance(found, dict) else getattr(found, "innererror", None)


def _as_text(value: bytes) -> tuple[str, str | None]:
    """What Key Vault keeps, which is text, and how to read it back."""
    try:
        return value.decode("utf-8"), None
    except UnicodeDecodeError:
        return base64.b64encode(value).decode("ascii"), _BINARY


def _as_bytes(name: str, text: str | None, kind: str | None) -> bytes:
    if kind != _BINARY:
        return (text or "").encode()
    try:
        return base64.b64decode(text or "", validate=True)
    except binascii.Error:
        raise SecretError(f"secret '{name}' is said to be base64, and is not\n  set it anew") from None


def _entry(name: str, found: Any) -> SecretEntry:
    return SecretEntry(
        name=name,
        owner=(found.tags or {}).get(_OWNER),
        # Each value is a version of its own in Key Vault.
        created_at=found.created_on,
        expires_at=found.expires_on,
        enabled=found.enabled is not False,
    )


def _missing(package: str | None) -> str:
    return (
        f"secret store 'azure_key_vault' needs azure-keyvault-secrets and azure-identity; {package} is not installed\n"
        "  install them: pip install 'edp-platform-core[azure]'"
    )
