"""Pictures, pairs and packs; archives and downloads; rain."""
