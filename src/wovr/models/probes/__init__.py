"""Networks that measure: actions and positions read off frames. Nothing acts through them."""
