"""Streams: the tape, NATS subjects and stream definitions, the ordered publisher, and the journal port with its backends."""
