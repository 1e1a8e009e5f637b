"""Data formats: records, blocks, entries, raw lines, facts, exact decimals. Pure; `codecs` alone imports capnp."""
