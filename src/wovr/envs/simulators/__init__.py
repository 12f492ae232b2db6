"""Simulators and robots as SimulatorEnv, a folder or file each."""
