"""Secrets: where they come from and how they are checked; never what they are."""
