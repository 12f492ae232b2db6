"""`wovr data`: look into episodes, check, convert, label, imagine them."""
