"""`wovr bench`: speeds on this machine."""
