"""httpx, imported in one place: without its own command line, for which it loads click, rich and pygments.

Those are installed, for other reasons, wherever ssmd is; they take as long to load as httpx itself.
"""

from ssmd.optional_modules import without

with without("click"):
    import httpx

__all__ = ["httpx"]
