"""Environments, real and imagined, behind one protocol. Nothing here that a simulator worker imports needs torch."""
