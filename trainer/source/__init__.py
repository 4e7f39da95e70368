"""Open a store, choose patches of it, and decode their pixels."""
