"""Where and how networks run: devices, processes, whole pictures, tiles."""
