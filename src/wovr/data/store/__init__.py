"""Episodes on disk: shards written, sealed, read by offset, checked byte by byte."""
