"""Projections: folds of the journal into views, where they are kept, and the typed queries every answer comes from."""
