"""Content-addressed storage: blocks, CIDs and the places they are kept."""
