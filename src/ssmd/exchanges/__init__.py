"""Venue adapters. The pure parts (frames, session, normalize, book) import no driver, clock, asyncio, os or logging."""
