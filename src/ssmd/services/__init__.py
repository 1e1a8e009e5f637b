"""Long-lived processes: connector, archivers, projector, simulator, supervisor, embedded servers."""
