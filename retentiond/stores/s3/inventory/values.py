"""How late a report may be, for all who reckon with that."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

LATE: Final = timedelta(days=1)
"""A report "might not include recently added or deleted objects"
(https://docs.aws.amazon.com/AmazonS3/latest/userguide/storage-inventory.html, "Inventory consistency"): it is taken to
have all that was written so long before it was begun."""
