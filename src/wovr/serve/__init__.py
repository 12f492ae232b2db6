"""The world model behind a local web page: what is imagined, what is played, what a browser may say.

A tab has a session, a session a game, and all games one engine: the networks and the simulator. Nothing else is shared.
"""
