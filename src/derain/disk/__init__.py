"""Files: written whole or not at all, the pipeline's paths, artifacts with checksums, strangers' checkpoints."""
