"""A venue on loopback that speaks Kalshi's protocol, fed by a capture or by a seeded market model, with faults on demand."""
