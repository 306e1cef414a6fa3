"""Who may look at the dashboards, and from where they show pictures. Apart from the command that
starts them: they do not wait for a command line.
"""

from __future__ import annotations

PASSWORD = "TOPBILL_DASHBOARD_PASSWORD"  # noqa: S105  (the name of the variable)
"""The variable with the dashboards' password."""
PICTURE_HOSTS = "TOPBILL_PICTURE_HOSTS"
"""The variable with the hosts that pictures may be shown from, with commas."""


def may_look(email: object, allowed: object) -> bool:
    """Whether the signed-in viewer with that verified address may look. `allowed` (of `[auth]`):
    addresses, and domains as `@example.com`; None lets in everybody whom the provider signs in."""
    if allowed is None:
        return True
    entries = allowed if isinstance(allowed, list | tuple) else []
    address = str(email or "").lower()
    for entry in entries:
        entry = str(entry).lower()
        # A domain with its @, so that example.com lets in nobody of notexample.com.
        if address == entry or (entry.startswith("@") and address.endswith(entry)):
            return True
    return False
