"""The evidence of what was done: appending to it, signing it, exporting it, and finding where it was altered."""
