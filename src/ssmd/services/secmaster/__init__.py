"""The security master's upkeep: the venue's list of markets, compared with the journal's."""
