# SPDX-License-Identifier: Apache-2.0
"""Who may talk to the console? Who knows this start's token, from this machine, from our own page.

The token is the first part of every path. A cookie would be sent to every other port of the loopback
address, sessionStorage would be empty in a second tab; a path is seen by nobody else (Referrer-Policy).
Host is checked against DNS rebinding, Origin against foreign pages that open a WebSocket.
"""

from __future__ import annotations

import hmac

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

LOOPBACK = ("127.0.0.1", "localhost", "::1")


def security_headers(port: int) -> dict[str, str]:
    """Headers of every answer: nothing from elsewhere is loaded, nobody frames or reads the page."""
    sockets = f"ws://127.0.0.1:{port} ws://localhost:{port}"
    policy = ("default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
              f"connect-src 'self' {sockets}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
    return {"Content-Security-Policy": policy, "X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY",
            "Referrer-Policy": "no-referrer", "Cache-Control": "no-store",
            "Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Resource-Policy": "same-origin",
            "Permissions-Policy": "camera=(), microphone=(), geolocation=(), display-capture=()"}


class Guard:
    """Refuses what does not belong; `token` is this start's secret, `port` the one bound."""

    def __init__(self, token: str, port: int) -> None:
        self.token = token
        self.hosts = {f"{_bracketed(host)}:{port}" for host in LOOPBACK}
        self.headers = security_headers(port)

    def refusal(self, request: web.Request) -> str | None:
        """Why a request is refused, None where it is not."""
        if request.host.lower() not in self.hosts:
            return "This console answers only under its own address on this machine."
        origin = request.headers.get("Origin")
        if origin is not None and not self.own_origin(origin):
            return "This console answers only its own page."
        given = request.path.split("/")[1] if request.path.startswith("/") else ""
        if not hmac.compare_digest(given.encode(), self.token.encode()):
            return "Open the address that fluoronav printed when it started: it carries this start's token."
        return None

    def own_origin(self, origin: str) -> bool:
        """Whether a page of that origin is ours."""
        scheme, _, host = origin.partition("://")
        return scheme == "http" and host.lower() in self.hosts


def middleware(guard: Guard) -> Middleware:
    """The guard as aiohttp middleware; every answer, refusals too, carries the security headers."""

    @web.middleware
    async def guarded(request: web.Request, handler: Handler) -> web.StreamResponse:
        why = guard.refusal(request)
        if why is not None:
            return web.Response(status=403, text=why, headers=guard.headers)
        try:
            answer = await handler(request)
        except web.HTTPException as refused:
            refused.headers.update(guard.headers)
            raise
        if not answer.prepared:
            answer.headers.update(guard.headers)
        return answer

    return guarded


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
