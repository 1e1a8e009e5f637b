"""Kalshi as a pure, seeded model: markets, order flow, subscriptions and the frames and bodies they make."""
