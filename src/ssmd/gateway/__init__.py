"""The gateway: market data over WebSocket and REST."""
