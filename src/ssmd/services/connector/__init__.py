"""The connector: one connection to a venue, its tape, and what follows the tape."""
