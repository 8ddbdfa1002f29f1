"""The batch side: stores, the ledger of results, the worker, the Ray driver, and what reads a finished store."""
