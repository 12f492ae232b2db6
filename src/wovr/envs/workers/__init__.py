"""Simulators in worker processes, N of them behind the one protocol."""
