"""Write patches of a store as files that other programs open."""
