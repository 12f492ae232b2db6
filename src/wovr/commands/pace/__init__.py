"""`wovr pace`: the whole chain, stage by stage."""
