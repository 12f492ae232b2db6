"""Other people's episode formats, read into shards and written from them."""
