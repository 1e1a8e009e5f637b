"""The composition root: the one place that knows every backend and puts components together."""
