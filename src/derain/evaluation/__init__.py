"""What a network is worth: image quality, and what a stream of tasks does to it."""
