"""Logs, metrics and traces, and the id that a request has in all of them."""
