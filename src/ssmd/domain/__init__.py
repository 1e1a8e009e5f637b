"""The domain: aggregates as pure deciders, their commands and events, and the event envelope. No I/O, no clock."""
