"""What commands and the API both ask and do: one answer, and one entry in the ledger, by whichever way it is asked for.

Functions here take a `Desk` and give frozen values; what is printed, sent or shown of them is the caller's. Who asks
has been let in already: `by` is the name that stands in the ledger.
"""
