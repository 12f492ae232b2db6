"""Optional: what is known of the robot itself, which a world model then need not learn from pixels."""
