"""What a run of the pipeline came to: metrics/summary.json, the HTML report, the terminal's table."""
