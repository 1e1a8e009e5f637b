"""ssmd: capture, journal, archive and serve prediction-market data.

Importing this package, or any module of it, opens, starts and reads nothing.
"""

__version__ = "0.1.0"
