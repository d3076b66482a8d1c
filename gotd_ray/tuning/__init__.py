"""The search of a training's settings as mathematics: what is proposed, and how far an early look can be trusted."""
