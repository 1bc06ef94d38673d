"""What is served by HTTP: health, readiness, metrics. Each resource of the API is a module of its own."""
