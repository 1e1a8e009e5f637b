"""structlog, imported in one place: without rich and colorama, which it knows for consoles.

ssmd's logs are lines of JSON (`telemetry.logging`); rich draws tables in `cli` and takes longer to load than structlog.
"""

from ssmd.optional_modules import without

with without("colorama", "rich"):
    import structlog

__all__ = ["structlog"]
