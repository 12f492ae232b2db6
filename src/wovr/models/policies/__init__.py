"""Policies behind one contract: `act` and `log_prob`."""
