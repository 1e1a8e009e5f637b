"""What notebooks and backtests use: `ssmd.open(env)`."""
