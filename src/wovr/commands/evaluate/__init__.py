"""`wovr evaluate`: a policy, a world model, a classifier or a value function, measured."""
