"""Kalshi: frames, session, normalization, signing."""
