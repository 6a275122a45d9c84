"""The kinds that a policy speaks of."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

KINDS: Mapping[str, str] = MappingProxyType(
    {
        "private_key": "credentials",
        "connection": "credentials",
        "url_password": "credentials",
        "api_key": "credentials",
        "jwt": "credentials",
        "email": "personal",
        "iban": "personal",
        "card": "personal",
        "national_id": "personal",
        "phone": "personal",
    }
)
"""Kind -> group."""
