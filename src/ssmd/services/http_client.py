"""httpx, imported in one place: without its own command line, for which it loads click, rich and pygments.

Those are installed, for other reasons, wherever ssmd is; they take as long to load as httpx itself.
"""

import ssl
from functools import lru_cache

from ssmd.optional_modules import without

with without("click"):
    import httpx

__all__ = ["authorities", "httpx"]


@lru_cache(maxsize=1)
def authorities() -> ssl.SSLContext:
    """Whom clients of this process trust (`verify=`), as httpx has it: reading that takes 40 ms of CPU a client otherwise."""
    return httpx.create_ssl_context()
