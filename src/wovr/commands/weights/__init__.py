"""`wovr weights`: networks that are fetched, packed to be given away, and shared through a hub. Torch-free."""
