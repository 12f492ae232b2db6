"""Episodes to and from WebDataset shards, clip sampling, inspection."""
