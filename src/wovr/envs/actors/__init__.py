"""Who acts in an environment: the scripted expert, chance, a policy."""
