"""Kalshi's REST interface over the network: signed, within the rate limit, patient with a limit."""
