"""What is measured: against a peer or a limit in the same run, printed as ratios, written as JSON."""
