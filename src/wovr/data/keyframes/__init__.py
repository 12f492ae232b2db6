"""Where rollouts begin: task-critical moments of stored episodes, and the pool of start states."""
