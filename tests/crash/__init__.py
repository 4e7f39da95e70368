"""Power cuts, simulated: record what is done to a folder, build what may be left of it, and go on from there."""
