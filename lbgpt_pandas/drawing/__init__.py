"""What users see of runs and deployments: HTML and text made of plain values, in one place."""
