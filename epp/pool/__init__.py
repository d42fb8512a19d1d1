"""State: who the endpoints are, how busy, how well, and what they hold in cache."""
