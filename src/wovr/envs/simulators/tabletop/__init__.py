"""The embedded environment: a Cartesian gripper over a small table, in MuJoCo. Torch-free."""
