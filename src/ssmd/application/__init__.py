"""The one door for writes: load an aggregate, decide, append with the expected version, retry on conflict."""
