"""The archive: segments, object keys, manifests, and the storage port with its backends."""
