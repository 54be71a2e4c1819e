"""A user's own pictures: taking the rain off them, and scoring what came out."""
