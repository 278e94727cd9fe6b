"""What a webhook may reach: addresses outside, and those of private networks where that is declared."""

from __future__ import annotations

from platform_core.errors import RefreshError
from platform_core.plugins.checked_network import CheckedNetwork


class WebhookNetwork(CheckedNetwork):
    """Dials what a webhook's host resolves to, once it is checked."""

    def refusal(self, text: str) -> Exception:
        return RefreshError(text)

    def told(self, host: str, address: str, why: str) -> str:
        return (
            f"{host} has the address {address}, which is not dialled ({why})"
            "\n  addresses of this machine and of private networks need 'allow_private: true' on the "
            "connection; those where clouds hand out credentials are never dialled"
        )
