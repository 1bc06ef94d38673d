"""S3 Inventory as the source of a target's keys instead of its bucket's listing.

A report of the bucket says which keys there are and when they were written: a stale picture, sorted here into the order
in which listings go. It says only where to look: what is due by it is listed anew right before it is judged again and
erased (`recheck`), so nothing is ever erased by what an inventory says.
"""
