"""Faults on purpose, by a seed, and the proof that they did no harm."""
