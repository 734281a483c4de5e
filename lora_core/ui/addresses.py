"""From which address a request comes, for who names no visitor: they share turns and places."""

from __future__ import annotations

from gradio.context import LocalContext


def address_of_caller(behind_proxy: bool) -> str:
    """From where the present event was asked for; all who ask from there share its turns.

    `behind_proxy`: the last address in `X-Forwarded-For`, which the proxy itself has added, counts
    instead of that of the proxy. Anybody can send that header, so a host has to say so. Call it
    within the function of an event; elsewhere, all share.
    """
    request = LocalContext.request.get(None)
    if request is None:
        return "address unknown"
    forwarded = request.headers.get("x-forwarded-for", "") if behind_proxy else ""
    client = request.client.host if request.client else "unknown"
    return f"address {forwarded.rpartition(',')[2].strip() or client}"
